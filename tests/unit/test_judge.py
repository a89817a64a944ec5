"""What becomes of kernels that misbehave: a verdict that names it, soon, and nothing left behind."""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from conftest import MINI, REPOSITORY
from snakernel.evaluation.verdict import Evaluation, Status
from zoo import HONEST, honest_but

WRITABLE = """
import os
import stat


def writable(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False

"""


def test_an_honest_kernel_passes(judged) -> None:
    evaluation = judged(HONEST)
    assert (evaluation.status, evaluation.compiled, evaluation.correct) == (Status.PASSED, True, True)
    assert evaluation.error == ""
    assert [one.status for one in evaluation.workloads] == [Status.PASSED] * 2
    assert evaluation.speedup == pytest.approx(sum(one.speedup for one in evaluation.workloads) / 2)
    for one in evaluation.workloads:
        assert one.speedup == pytest.approx(one.reference_ms / one.latency.median_ms)
        assert one.latency.low_ms <= one.latency.median_ms <= one.latency.high_ms


@pytest.mark.parametrize(
    ("host_ms", "waits", "told"),
    [(0.01, False, []), (0.2, False, ["longer to launch"]), (0.2, True, ["host waits for the device"])],
)
def test_what_the_host_does_in_a_call_is_noted(judged, host_ms: float, waits: bool, told: list[str]) -> None:
    from snakernel.evaluation.judge import _notes
    from snakernel.evaluation.verdict import Latency

    workloads = judged(HONEST).workloads
    workloads[0].latency = Latency.of([0.1], [host_ms], waits=waits)
    notes = _notes(workloads)
    assert len(notes) == len(told)
    assert all(one in note and "on 1 of 1 workloads" in note for one, note in zip(told, notes, strict=True))


def test_while_variants_are_compiled_the_next_workloads_are_checked(judged, monkeypatch: pytest.MonkeyPatch) -> None:
    from snakernel.evaluation import judge

    asked: list[str] = []
    begin = judge.Candidate.begin
    monkeypatch.setattr(
        judge.Candidate, "begin", lambda self, name, *more, **key: (asked.append(name), begin(self, name, *more, **key))
    )
    one_by_one = judged(HONEST, num_trials=2)
    before = [name for name in asked if name in ("run", "time")]
    asked.clear()
    monkeypatch.setattr(judge.CompileAhead, "is_working", lambda self, seconds: seconds > 0)
    checked_ahead = judged(HONEST, num_trials=2)
    assert before == ["run", "run", "time", "run", "run", "time"]
    assert [name for name in asked if name in ("run", "time")] == ["run", "run", "run", "run", "time", "time"]
    for evaluation in (one_by_one, checked_ahead):
        assert evaluation.correct, evaluation.error
        assert all(one.latency for one in evaluation.workloads)

    batch = checked_ahead.workloads[1].axes["batch_size"]
    wrong = judged(honest_but(f"y = y + (hidden_states.shape[0] == {batch})"))
    assert [one.status for one in wrong.workloads] == [Status.PASSED, Status.INCORRECT_NUMERICAL]
    fails = judged(honest_but(f"assert hidden_states.shape[0] != {batch}"))
    assert [one.status for one in fails.workloads] == [Status.NOT_RUN, Status.RUNTIME_ERROR]
    assert fails.status is Status.RUNTIME_ERROR
    assert fails.error.startswith(f"workload batch_size={batch}:")
    assert fails.workloads[0].error == "right, but not timed: another workload failed"


def test_destination_passing_style_is_read_off_the_signature(judged) -> None:
    kernel = HONEST.replace(
        "def run(hidden_states, weight):\n    y = torch.empty_like(hidden_states)\n",
        "def run(hidden_states, weight, y):\n",
    )
    assert judged(kernel.replace("    return y\n", "")).correct


def test_a_kernel_for_cuda_only_runs_its_triton_code_here(judged) -> None:
    guard = (
        "    assert torch.cuda.is_available() and hidden_states.is_cuda and hidden_states.device.type == 'cuda'\n"
        "    hidden_states, weight = hidden_states.cuda(), weight.to('cuda')\n"
        "    y = torch.empty(hidden_states.shape, dtype=torch.bfloat16, device='cuda')\n"
    )
    assert judged(HONEST.replace("    y = torch.empty_like(hidden_states)\n", guard)).correct


@pytest.mark.parametrize(
    ("kernel", "status", "compiled", "told"),
    [
        ("def run(x", Status.COMPILE_ERROR, False, "'(' was never closed"),
        ("import no_such_module\n" + HONEST, Status.COMPILE_ERROR, False, "No module named 'no_such_module'"),
        ("x = 1\n", Status.COMPILE_ERROR, False, "Entry symbol 'run' not found"),
        ("def run(a): return a\n", Status.COMPILE_ERROR, False, "expected 2 parameters"),
        ("# No kernel: the answer is empty.\n", Status.COMPILE_ERROR, False, "the answer is empty."),
        ("import os\nos._exit(0)\n" + HONEST, Status.COMPILE_ERROR, False, "exited with code 0"),
        ("import sys\nsys.exit(3)\n" + HONEST, Status.COMPILE_ERROR, False, "exited with code"),
        (HONEST.replace("tl.rsqrt", "tl.no_such_function"), Status.RUNTIME_ERROR, False, "no_such_function"),
        (honest_but("y[0, 0] = 7"), Status.INCORRECT_NUMERICAL, True, "output 'output'"),
        (honest_but("y = y * float('nan')"), Status.INCORRECT_NUMERICAL, True, "are wrong: output[0, 0] is nan"),
        (honest_but("y = y[:, :128]"), Status.INCORRECT_SHAPE, True, "has shape [1, 128], expected [1, 256]"),
        (honest_but("y = torch.cat([y] * 99)"), Status.INCORRECT_SHAPE, True, "has shape [99, 256], expected [1, 256]"),
        (honest_but("y = y.float()"), Status.INCORRECT_DTYPE, True, "is torch.float32, expected torch.bfloat16"),
        (honest_but("y = (y, y)"), Status.RUNTIME_ERROR, True, "2 elements but 1 outputs expected"),
        (honest_but("y = None"), Status.RUNTIME_ERROR, True, "run returned NoneType"),
        (honest_but("y = 'text'"), Status.RUNTIME_ERROR, True, "run returned str"),
        (honest_but("raise ValueError('on purpose')"), Status.RUNTIME_ERROR, True, "ValueError: on purpose"),
        (honest_but("import sys; sys.exit(0)"), Status.RUNTIME_ERROR, True, "exited with code"),
        (honest_but("import os; os._exit(7)"), Status.RUNTIME_ERROR, True, "exited with code 7"),
        (honest_but("import ctypes; ctypes.string_at(0)"), Status.RUNTIME_ERROR, True, "SIGSEGV"),
        (honest_but("import os; os.kill(os.getpid(), 9)"), Status.RUNTIME_ERROR, True, "SIGKILL"),
        (honest_but("import os; os.abort()"), Status.RUNTIME_ERROR, True, "SIGABRT"),
        (
            honest_but("y = y.as_subclass(Lazy)", "import torch\nclass Lazy(torch.Tensor): pass\n"),
            Status.RUNTIME_ERROR,
            True,
            "run returned a Lazy, not a plain torch.Tensor",
        ),
        (
            honest_but(
                "[os.write(fd, b'x' * 64) for fd in range(3, 64) if writable(fd)]",
                WRITABLE,
            ),
            Status.RUNTIME_ERROR,
            True,
            "gave an answer that cannot be read",
        ),
    ],
)
def test_a_misbehaving_kernel_gets_its_verdict(judged, kernel: str, status: Status, compiled: bool, told: str) -> None:
    begun = time.monotonic()
    evaluation = judged(kernel, eval_timeout_s=60)
    assert (evaluation.status, evaluation.compiled, evaluation.correct) == (status, compiled, False)
    assert told in evaluation.error
    assert evaluation.speedup is None
    # Far under the limit: the end of a process is noticed, not waited for.
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("wrong", [None, 0, 4, 6])
def test_more_draws_than_are_under_way_at_once_are_each_compared_with_their_own_outputs(judged, wrong) -> None:
    head = "calls = iter(range(1000))\n"
    evaluation = judged(honest_but(f"if next(calls) == {wrong}: y = y + 1", head), num_trials=7)
    assert evaluation.workloads[0].status is (Status.PASSED if wrong is None else Status.INCORRECT_NUMERICAL)


@pytest.mark.parametrize("answer", [{}, {"written": None}])
def test_an_answer_must_tell_which_inputs_were_written_to(judged, answer: dict[str, object]) -> None:
    from snakernel.evaluation.candidate import Allowance, CandidateDied
    from snakernel.evaluation.judge import RemoteRunnable

    finish = {"outputs": [], "several": True, **answer}
    candidate = SimpleNamespace(
        kind="cpu",
        begin=lambda *_, **__: None,
        finish=lambda _: finish,
        outputs=lambda *_: [],
        unreadable=lambda: CandidateDied("cannot be read"),
    )
    remote = RemoteRunnable(candidate, Allowance(1))
    remote.run_ahead([(0, 7)])
    with pytest.raises(CandidateDied, match="cannot be read"):
        remote.next_draw()


def test_an_endless_kernel_is_killed_with_its_children(judged) -> None:
    before = {process.pid for process in psutil.process_iter()}
    body = "import subprocess, time; subprocess.Popen(['sleep', '987'], start_new_session=True); time.sleep(1000)"
    evaluation = judged(honest_but(body), eval_timeout_s=1.5)
    assert evaluation.status is Status.TIMEOUT
    assert "not done after 1.5 s" in evaluation.error
    assert [one.status for one in evaluation.workloads] == [Status.TIMEOUT, Status.NOT_RUN]
    left = [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.pid not in before and "987" in (process.info["cmdline"] or [])
    ]
    assert left == []


def test_an_endless_import_is_killed(judged) -> None:
    evaluation = judged("while True: pass\n", eval_timeout_s=1)
    assert (evaluation.status, evaluation.compiled) == (Status.TIMEOUT, True)
    assert "importing the kernel took more than 1 s" in evaluation.error


@pytest.mark.parametrize("part", ["_confine", "_serve"])
def test_a_candidate_that_is_killed_before_its_kernel_is_imported_is_told(judged, monkeypatch, part: str) -> None:
    """As any other that is killed: so it is judged once more."""
    monkeypatch.setattr(f"snakernel.evaluation.candidate.{part}", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    evaluation = judged(HONEST)
    assert evaluation.status is Status.COMPILE_ERROR
    assert evaluation.error == "the kernel's process was ended by signal SIGKILL"


def test_a_candidate_that_cannot_be_set_up_is_no_verdict(judged, monkeypatch) -> None:
    monkeypatch.setattr("snakernel.evaluation.candidate._confine", lambda *_: os._exit(3))
    with pytest.raises(RuntimeError, match=r"could not be set up \(the kernel's process exited with code 3\)"):
        judged(HONEST)


def test_what_a_kernel_prints_is_kept_and_bounded(judged) -> None:
    evaluation = judged(honest_but("print('begin'); print('x' * 5_000_000); print('end', flush=True)"))
    assert evaluation.correct
    assert evaluation.log.startswith("begin")
    assert evaluation.log.rstrip().endswith("end")
    assert "bytes left out" in evaluation.log
    assert len(evaluation.log) < 40_000


def test_one_failing_workload_fails_the_kernel_and_the_others_are_still_judged(judged) -> None:
    evaluation = judged(honest_but("y = y + (hidden_states.shape[0] == 1)"))
    assert evaluation.status is Status.INCORRECT_NUMERICAL
    assert [one.status for one in evaluation.workloads] == [Status.INCORRECT_NUMERICAL, Status.PASSED]
    assert evaluation.stats == {"INCORRECT_NUMERICAL": 1, "PASSED": 1}


def test_no_key_and_no_file_of_the_judge_is_in_reach(judged, monkeypatch: pytest.MonkeyPatch) -> None:
    """The expected outputs are not in the candidate's memory, nor does it have a descriptor beside its own four."""
    body = (
        "import gc, os; tensors = [t for t in gc.get_objects() if isinstance(t, torch.Tensor)]; "
        "print('tensors', len([t for t in tensors if t.shape == y.shape and t is not y and t is not hidden_states])); "
        "print('descriptors', sorted(int(fd) for fd in os.listdir('/proc/self/fd') if int(fd) < 100))"
    )
    gc.collect()  # what judges of earlier tests left in this process is none of a fresh one's
    evaluation = judged(honest_but(body))
    assert evaluation.correct
    assert "tensors 0" in evaluation.log


SAY = """
import os
import stat
import struct


def say(data, size=None):
    for fd in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, struct.pack("!i", len(data) if size is None else size) + data)
        except OSError:
            pass

"""
KEPT = '"kept": [{"outputs": [], "several": true}, {"outputs": [], "several": true}]'
TIMES = (
    "COUNT.append(1); len(COUNT) == 4 and "
    'say(b\'{{"calls_ms": {}, "host_ms": [], "trailing_ms": null, '
    + KEPT.replace("{", "{{").replace("}", "}}")
    + "}}')"
)
COUNT = SAY + "COUNT = []\n"
LIES = {
    "half of a message": (SAY, "say(b'{', 100); import time; time.sleep(100)", Status.TIMEOUT, "not done after"),
    "a huge message": (SAY, "say(b'', 2**31 - 1)", Status.RUNTIME_ERROR, "cannot be read"),
    "no JSON": (SAY, "say(b'\\xff{{')", Status.RUNTIME_ERROR, "cannot be read"),
    "deep JSON": (SAY, "say(b'[' * 100000)", Status.RUNTIME_ERROR, "cannot be read"),
    "a list": (SAY, "say(b'[]')", Status.RUNTIME_ERROR, "cannot be read"),
    "outputs that are none": (SAY, 'say(b\'{"outputs": 7, "written": []}\')', Status.RUNTIME_ERROR, "cannot be read"),
    "an output that is a text": (
        SAY,
        'say(b\'{"several": false, "written": [], "outputs": [{"scalar": "x"}]}\')',
        Status.RUNTIME_ERROR,
        "cannot be read",
    ),
    "an output that is kept back": (
        SAY,
        'say(b\'{"several": false, "written": [], "outputs": '
        '[{"dtype": "bfloat16", "shape": [1, 256], "offset": null}]}\')',
        Status.RUNTIME_ERROR,
        "cannot be read",
    ),
    "no times": (COUNT, TIMES.format("[]"), Status.RUNTIME_ERROR, "cannot be read"),
    "times that are texts": (COUNT, TIMES.format('["x"]'), Status.RUNTIME_ERROR, "cannot be read"),
    "a time that is not a number": (COUNT, TIMES.format("[NaN, NaN]"), Status.RUNTIME_ERROR, "cannot be read"),
    "an endless time": (COUNT, TIMES.format("[Infinity]"), Status.RUNTIME_ERROR, "cannot be read"),
    "no time at all": (COUNT, TIMES.format("[0.0]"), Status.RUNTIME_ERROR, "cannot be read"),
    "an error that cannot be written": ("", "raise ValueError('\\ud800')", Status.RUNTIME_ERROR, "ValueError: ?"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_candidate_that_lies_to_the_judge_gets_a_verdict(judged, name: str) -> None:
    head, body, status, told = LIES[name]
    evaluation = judged(honest_but(body, head), eval_timeout_s=2)
    assert (evaluation.status, evaluation.correct) == (status, False), evaluation.error
    assert told in evaluation.error
    Evaluation.model_validate_json(evaluation.model_dump_json())


def test_defaults_do_not_make_a_kernel_destination_passing(judged) -> None:
    kernel = HONEST.replace("def run(hidden_states, weight):", "def run(hidden_states, weight, eps=1e-6):")
    assert "expected 2 parameters, but got 3" in judged(kernel).error


FORBIDDEN = {
    "writes where results lie": "open(REFERENCE + '/expected/new', 'w')",
    "reads the expected outputs": "os.listdir(REFERENCE)",
    "writes to the folder for temporary files": "open('/tmp/snakernel-forbidden', 'w')",
    "reads the home folder": "os.listdir(pwd.getpwuid(os.getuid()).pw_dir)",
    "changes the library that judges": "open(LIBRARY + '/judge.py', 'a')",
    "changes the dataset": "open(DATASET + '/new', 'w')",
    "reads the passwords": "open('/etc/shadow')",
    "reads the judge's environment": "open(f'/proc/{os.getppid()}/environ').read(1) or 1 / 0",
    "reads the judge's memory": "open(f'/proc/{os.getppid()}/mem', 'rb')",
    "signals the judge": "os.kill(os.getppid(), 0)",
    "connects by TCP": "socket.create_connection(('127.0.0.1', PORT), timeout=2)",
    "mounts": "libc.mount(b'none', b'/mnt', b'tmpfs', 0, None) and 1 / 0",
    "makes a device": "os.mknod('device', 0o600 | stat.S_IFBLK, os.makedev(7, 0))",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_a_candidate_must_not_do(judged, what: str, tmp_path: Path) -> None:
    import landlockpy

    if not landlockpy.supported():
        pytest.skip("this kernel has no Landlock")
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = (
            "import ctypes, os, pwd, socket, stat\nlibc = ctypes.CDLL(None)\n"
            f"REFERENCE, DATASET, PORT = {str(judged.reference)!r}, {str(MINI)!r}, {server.getsockname()[1]}\n"
            f"LIBRARY = {str(REPOSITORY / 'scripts' / 'snakernel' / 'evaluation')!r}\n"
            f"try:\n    {FORBIDDEN[what]}\n    print('DONE')\nexcept Exception as error:\n    print('refused', error)\n"
        )
        evaluation = judged(head + HONEST)
    assert evaluation.correct, evaluation.error
    assert "refused" in evaluation.log
    assert "DONE" not in evaluation.log


def test_what_keeps_a_candidate_is_recorded(judged) -> None:
    told = " ".join(judged(HONEST).isolation)
    assert "environment without keys" in told
    assert "Landlock" in told


def test_scratch_folders_are_removed(judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    judged(honest_but("open('left behind', 'w').write('x')"))
    assert list(tmp_path.iterdir()) == []
