"""The evaluator on a real CUDA device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from evaluating import Bench, wait_for
from snakernel.evaluation.devices import cuda_devices
from snakernel.evaluation.profiling import find_profiler
from snakernel.evaluation.verdict import Status

pytestmark = pytest.mark.skipif(not cuda_devices(), reason="there is no CUDA device on this machine")

HEAD = "import torch\nimport triton\nimport triton.language as tl\n"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    keys = {"eval_backend": "local", "num_trials": 3, "iterations": 100, "warmup_runs": 5, "max_workloads": 2}
    made = Bench(tmp_path_factory.mktemp("gpu"), eval_timeout_s=20.0, **keys).prepare()
    yield made
    made.close()


def verdict(bench: Bench, kernel: str):
    (bench.folder / "candidate.py").write_text(kernel)
    return bench.judge(kernel="candidate.py")


def but(bench: Bench, body: str, head: str = "") -> str:
    """The honest kernel with a line before what it returns."""
    code = (bench.folder / "kernel.py").read_text()
    start, _, result = code.rpartition("    return ")
    return f"{head}{start}    y = {result.strip()}\n    {body}\n    return y\n"


def test_an_honest_kernel_passes_warm_and_cold(bench: Bench) -> None:
    warm = bench.judge()
    assert warm.correct, warm.error
    assert warm.device.kind == "cuda" and warm.device.uuid.startswith("GPU-")
    assert all(0 < one.latency.low_ms <= one.latency.median_ms <= one.latency.high_ms for one in warm.workloads)
    assert all(one.latency.host_ms > 0 for one in warm.workloads)
    text = bench.config.read_text()
    bench.config.write_text(text + "warm: false\n")
    cold = bench.judge()
    bench.config.write_text(text)
    assert cold.status == warm.status
    assert cold.seconds["import"] > warm.seconds["import"] == 0


@pytest.mark.parametrize(
    ("body", "head", "status", "compiled", "told"),
    [
        (
            "bad[(1,)](y)",
            HEAD + "@triton.jit\ndef bad(y):\n    tl.store(y + 2**40, 1.0)\n",
            Status.RUNTIME_ERROR,
            True,
            "",
        ),
        (
            "bad[(1,)](y)",
            HEAD + "@triton.jit\ndef bad(y):\n    tl.nothing(y)\n",
            Status.RUNTIME_ERROR,
            False,
            "CompilationError",
        ),
        ("torch.empty(2**42, device='cuda')", HEAD, Status.RUNTIME_ERROR, True, "out of memory"),
        ("import os; os._exit(3)", "", Status.RUNTIME_ERROR, True, "exited with code 3"),
        ("import os; os.kill(os.getpid(), 9)", "", Status.RUNTIME_ERROR, True, "ended by signal SIGKILL"),
        ("y = y.cpu()[:, :1].cuda()", "", Status.INCORRECT_SHAPE, True, "has shape"),
        ("y = y * 1.1", "", Status.INCORRECT_NUMERICAL, True, "are wrong"),
        ("import time; time.sleep(100)", "", Status.TIMEOUT, True, "not done after 20 s"),
    ],
)
def test_a_misbehaving_kernel_gets_its_verdict_and_the_next_one_its_own(
    bench: Bench, body: str, head: str, status: Status, compiled: bool, told: str
) -> None:
    evaluation = verdict(bench, but(bench, body, head))
    assert (evaluation.status, evaluation.compiled) == (status, compiled), evaluation.error
    assert told in evaluation.error
    assert bench.judge().correct


def test_files_are_out_of_reach(bench: Bench) -> None:
    head = (
        f"try:\n    open({str(bench.task)!r} + '/new', 'w')\n    print('DONE')\nexcept OSError:\n    print('refused')\n"
    )
    evaluation = verdict(bench, head + (bench.folder / "kernel.py").read_text())
    assert evaluation.correct, evaluation.error
    assert "refused" in evaluation.log


@pytest.mark.skipif(find_profiler() is None, reason="Nsight Compute (ncu) is not on this machine")
def test_a_correct_kernel_is_profiled_and_stays_confined(bench: Bench) -> None:
    text = bench.config.read_text()
    bench.config.write_text(text + "feedback: [profile]\n")
    try:
        honest = bench.judge()
        # A kernel that looks at what it may touch, wherever it runs.
        tried = "\n".join(
            [
                "import os",
                "CORE = '/proc/sys/kernel/core_pattern'",
                "def look():",
                "    told = []",
                f"    for path in ('/etc/shadow', {str(bench.folder)!r}, '/proc/1/environ', CORE):",
                "        try:",
                "            os.listdir(path) if os.path.isdir(path) else open(path, 'r+').close()",
                "            told.append(path)",
                "        except OSError:",
                "            pass",
                "    return told",
                "def check():",
                "    if found := look():",
                "        raise RuntimeError(f'sees {found}')",
                "",
            ]
        )
        spy = verdict(bench, but(bench, "check()", tried))
    finally:
        bench.config.write_text(text)
    for judged in (honest, spy):
        assert judged.correct, judged.error
        assert not judged.profile.error
        kernel = judged.profile.kernels[0]
        assert kernel.time_us > 0 and kernel.memory > 0 and kernel.dram > 0 and kernel.compute is not None
        assert kernel.stalls and sum(kernel.stalls.values()) < 100
    assert bench.judge().profile is None


def test_a_standby_gives_the_verdict_that_a_fork_gives(bench: Bench) -> None:
    """Also on a kernel that looks at what it may touch: a standby's kernel is as confined as any other."""
    tried = f"for path, mode in (('/etc/shadow', 'r'), ({str(bench.task / 'new')!r}, 'w')):\n    try:\n"
    tried += "        open(path, mode)\n        print('DONE')\n    except OSError:\n        print('refused')\n"
    (bench.folder / "spy.py").write_text(tried + (bench.folder / "kernel.py").read_text())
    (bench.folder / "wrong.py").write_text(but(bench, "y = y * 1.1"))
    bench.judge()
    fork = bench.judge()  # the second of its kind in a row
    (parent,) = bench.parents()
    for kernel, correct in (("kernel.py", True), ("spy.py", True), ("wrong.py", False), ("kernel.py", True)):
        wait_for(lambda: len(parent.children(recursive=True)) == 2)
        evaluation = bench.judge(kernel=kernel)  # it waits for the device, which the standby gives back when it waits
        assert evaluation.seconds["start"] == 0.0
        assert evaluation.correct == correct, evaluation.error
        assert evaluation.isolation == fork.isolation
        assert evaluation.log == ("refused\n" * 2 if kernel == "spy.py" else "")
