"""The warm parent: found by those who may, gone when it should be, and never in the way of a verdict."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from evaluating import CPU, SCRIPTS, Bench, is_gone, wait_for
from snakernel import warm
from snakernel.config import read_config
from snakernel.evaluation.call import parent_of


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path).prepare()
    yield made
    made.close()


def test_one_parent_serves_all_and_gives_the_verdict_that_a_process_of_its_own_gives(bench: Bench) -> None:
    first = bench.judge()
    (parent,) = bench.parents()
    second = bench.judge()
    assert bench.parents() == [parent]
    assert parent.children() == []
    assert first.seconds["import"] == second.seconds["import"] == 0
    bench.config.write_text(bench.config.read_text() + "warm: false\n")
    cold = bench.judge()
    assert cold.seconds["import"] > 0
    skip = {"workloads", "speedup", "speedup_geomean", "speedup_over_baseline", "latency_ms", "seconds", "started"}
    assert cold.model_dump(exclude=skip) == first.model_dump(exclude=skip) == second.model_dump(exclude=skip)
    for one, other in zip(cold.workloads, first.workloads, strict=True):
        assert (one.status, one.max_absolute_error) == (other.status, other.max_absolute_error)


def test_a_judge_leaves_no_shared_memory(bench: Bench) -> None:
    def left() -> list[Path]:
        return [*Path("/dev/shm").glob(f"torch_*_{bench.folder.name}")]

    mark = "import os\n\nopen(f'/dev/shm/torch_{os.getppid()}_" + bench.folder.name + "', 'w').close()\n"
    (bench.folder / "leaves.py").write_text(mark + (bench.folder / "kernel.py").read_text())
    assert bench.judge(kernel="leaves.py").correct
    wait_for(lambda: not left())
    bench.config.write_text(bench.config.read_text() + "warm: false\n")
    assert bench.judge(kernel="leaves.py").correct
    assert not left()


def test_no_two_runs_share_a_parent(bench: Bench, tmp_path: Path) -> None:
    config = read_config(bench.config)
    sockets = {
        parent_of(config, CPU).socket,
        parent_of(config, {}).socket,
        parent_of(config.model_copy(update={"save_path": str(tmp_path / "other")}), CPU).socket,
        parent_of(config.model_copy(update={"dataset_root": str(tmp_path)}), CPU).socket,
    }
    assert len(sockets) == 4


def test_a_caller_that_is_killed_takes_its_evaluation_with_it(bench: Bench) -> None:
    caller = bench.start("sleeper.py")
    (parent,) = bench.parents()
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    wait_for(lambda: not parent.children(recursive=True))
    assert not (bench.folder / "evaluation.json").exists()
    assert bench.judge().correct
    assert bench.parents() == [parent]


def test_a_parent_that_is_killed_takes_its_forks_with_it_and_is_replaced(bench: Bench) -> None:
    bench.judge()
    (parent,) = bench.parents()
    caller = bench.start("sleeper.py")
    forks = parent.children(recursive=True)
    caller.send_signal(signal.SIGSTOP)
    parent.kill()
    wait_for(lambda: all(map(is_gone, forks)))
    caller.kill()
    caller.wait()
    assert bench.judge().correct
    assert bench.parents() != [parent]


def test_the_parent_goes_when_its_run_is_killed(tmp_path: Path) -> None:
    run = subprocess.Popen(["sleep", "1000"])
    bench = Bench(tmp_path, run_pid=run.pid).prepare()
    assert len(bench.parents()) == 1
    run.kill()
    run.wait()
    wait_for(lambda: not bench.parents())
    assert not parent_of(read_config(bench.config), CPU).socket.exists()


def test_the_parent_goes_when_it_is_idle(tmp_path: Path) -> None:
    bench = Bench(tmp_path, warm_idle_s=0.5).prepare()
    wait_for(lambda: not bench.parents())


def test_without_the_token_nobody_is_served(bench: Bench) -> None:
    place = parent_of(read_config(bench.config), CPU)
    assert place.socket.stat().st_mode & 0o777 == 0o600
    assert place.token.stat().st_mode & 0o777 == 0o600
    assert place.socket.parent.stat().st_mode & 0o777 == 0o700
    out = bench.folder / "forged.json"
    texts = {"config": str(bench.config), "task_folder": str(bench.task), "kernel": "", "out": str(out)}
    for message in (
        b"nonsense\n",
        json.dumps({"token": "x", "action": "evaluate", "arguments": texts}).encode() + b"\n",
    ):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(place.socket))
            socket.send_fds(caller, [message], [1, 2])
            assert caller.recv(100) == b""
    assert bench.judge().correct
    assert not out.exists()


def test_a_folder_that_others_may_enter_is_not_used(bench: Bench, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"snakernel-{os.getuid()}").mkdir(mode=0o755)
    assert parent_of(read_config(bench.config), CPU) is None


@pytest.mark.slow
def test_many_verdicts_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory, descriptors, processes and temporary files after 5 and after 16 verdicts, one of them killed."""
    temporary = Path("/tmp") / f"snakernel-test-{os.getpid()}"
    temporary.mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    try:
        bench = Bench(tmp_path).prepare()
        (parent,) = bench.parents()

        def measure() -> tuple[int, int, list[str]]:
            wait_for(lambda: not parent.children())
            return parent.num_fds(), len(parent.children()), sorted(path.name for path in temporary.iterdir())

        for _ in range(5):
            bench.judge()
        first, memory = measure(), parent.memory_info().rss
        assert first[2] == [f"snakernel-{os.getuid()}"]
        for _ in range(10):
            bench.judge()
        bench.start("sleeper.py").kill()
        wait_for(lambda: measure() == first)
        assert parent.memory_info().rss - memory < 4 * 2**20
        bench.close()
    finally:
        shutil.rmtree(temporary)


@pytest.mark.parametrize("warm_parent", [True, False])
def test_no_key_reaches_a_kernel(tmp_path: Path, warm_parent: bool) -> None:
    """Neither in its environment nor in what its process began with."""
    bench = Bench(tmp_path, warm=warm_parent)
    bench.environment["ANTHROPIC_API_KEY"] = "sk-ant-not-for-kernels"
    bench.prepare()
    spy = "import os\nprint('begin', dict(os.environ), open('/proc/self/environ').read())\n"
    (bench.folder / "spy.py").write_text(spy + (bench.folder / "kernel.py").read_text())
    try:
        evaluation = bench.judge(kernel="spy.py")
    finally:
        bench.close()
    assert evaluation.correct
    assert "begin" in evaluation.log and "PATH" in evaluation.log
    assert "not-for-kernels" not in (bench.folder / "evaluation.json").read_text()


THIEF = """
import json
import socket
import sys

frame, request = sys._getframe(), None
while frame is not None:
    request = request or frame.f_locals.get("request")
    frame = frame.f_back
print("stole", request is not None and "token" in request)
path = sys.argv[sys.argv.index("--socket") + 1]
with socket.socket(socket.AF_UNIX) as caller:
    caller.settimeout(10)
    caller.connect(path)
    arguments = {**request["arguments"], "out": request["arguments"]["out"] + ".forged"}
    message = json.dumps({**request, "action": "evaluate", "arguments": arguments}).encode()
    try:
        socket.send_fds(caller, [message + b"\\n"], [1, 2])
        print("answer", len(caller.recv(100)))
    except OSError as error:
        print("answer 0", error)

"""


def test_a_kernel_that_steals_the_token_is_not_served(bench: Bench) -> None:
    """It is a fork, so what its judge was asked is in its memory; and a socket is no file to the sandbox."""
    (bench.folder / "thief.py").write_text(THIEF + (bench.folder / "kernel.py").read_text())
    evaluation = bench.judge(kernel="thief.py")
    assert "stole True" in evaluation.log
    assert "answer 0" in evaluation.log
    assert not (bench.folder / "evaluation.json.forged").exists()


PARENT = """
import argparse, sys, time
from pathlib import Path
sys.path.insert(0, {scripts!r})
from snakernel import warm_parent

folder = Path({folder!r})


def carry_out(request):
    global number
    number = request["number"]


def tidy():
    while number == 1 and not (folder / "all answered").exists():
        time.sleep(0.01)
    (folder / f"tidied {{number}}").touch()


parser = argparse.ArgumentParser()
warm_parent.add_arguments(parser)
warm_parent.Server.of(parser.parse_args(), carry_out, afterwards=tidy).serve()
"""


def test_a_fork_finishes_what_follows_its_answer_though_its_caller_has_gone(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(scripts=str(SCRIPTS), folder=str(tmp_path)))
    parent = warm.parent_of(script, dict(os.environ), [str(tmp_path)])
    for number in (1, 2):  # when it answers the second, the parent has seen that the first caller is gone
        assert warm.call(parent, {"number": number}, start=("--idle-s", "1")) == 0
    (tmp_path / "all answered").touch()
    wait_for(lambda: (tmp_path / "tidied 1").exists())


def test_what_a_kernel_leaves_behind_is_ended_once_its_verdict_is_there(bench: Bench) -> None:
    kernel = bench.folder / "kernel.py"
    leaves = (
        "import os, subprocess\nleft = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "print('left', left.pid, flush=True)\n"
    )
    kernel.write_text(leaves + kernel.read_text())
    verdict = bench.judge()
    (parent,) = bench.parents()
    left = int(verdict.log.split("left ")[1].split()[0])
    wait_for(lambda: not parent.children() and not psutil.pid_exists(left))
