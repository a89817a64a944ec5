"""The standby: a process that the warm parent forks ahead for another kernel of the task that it judged last, twice.

It needs a device to be worth while; here it is asked for on a device's behalf that is not there, in the interpreter.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from evaluating import CPU, SCRIPTS, Bench, is_gone, wait_for
from filelock import FileLock
from snakernel.config import read_config
from snakernel.evaluation.call import parent_of
from snakernel.evaluation.devices import LOCK_FOLDER
from snakernel.evaluation.verdict import Evaluation
from snakernel.files import read_model
from snakernel.warm_parent import Server, _Standby

DEVICE = "no-device"
ASK = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from snakernel import warm
script, path, environment, request = json.loads(sys.argv[2])
sys.exit(warm.call(warm.Parent(Path(script), Path(path), environment), request))
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv(LOCK_FOLDER, str(tmp_path))
    made = Bench(tmp_path).prepare()
    judge(made)
    yield made
    made.close()


def lock_of(bench: Bench) -> FileLock:
    return FileLock(bench.folder / f"snakernel-{DEVICE}.lock")


def start(bench: Bench, kernel: str = "kernel.py", **request: object) -> subprocess.Popen[str]:
    """Ask for a verdict as who has the device."""
    paths = {"config": bench.config, "task_folder": bench.task, "kernel": bench.folder / kernel}
    paths["out"] = bench.folder / "evaluation.json"
    texts = {name: str(path) for name, path in paths.items()}
    place = parent_of(read_config(bench.config), CPU)
    asked = {"action": "evaluate", "arguments": texts, "device": DEVICE, **request}
    message = json.dumps([str(place.script), str(place.socket), place.environment, asked])
    command = [sys.executable, "-c", ASK, str(SCRIPTS), message]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=bench.folder)


def judge(bench: Bench, kernel: str = "kernel.py", **request: object) -> Evaluation:
    asked = start(bench, kernel, **request)
    told, _ = asked.communicate()
    assert asked.returncode == 0, told
    return read_model(bench.folder / "evaluation.json", Evaluation)


def family(bench: Bench) -> list[psutil.Process]:
    (parent,) = bench.parents()
    return parent.children(recursive=True)


def standby(bench: Bench) -> psutil.Process:
    """The standby, once it waits: it has forked the candidate's process, and released the device."""

    def waits() -> bool:
        if len(family(bench)) != 2:
            return False
        with lock_of(bench).acquire(timeout=20):
            return True

    wait_for(waits)
    return bench.parents()[0].children()[0]


def was_standby(evaluation: Evaluation) -> bool:
    return evaluation.seconds["start"] == 0.0


def test_the_next_kernel_of_the_task_is_judged_by_a_standby_and_gets_the_same_verdict(bench: Bench) -> None:
    first = judge(bench)
    assert not was_standby(first)
    ahead = standby(bench)
    second = judge(bench)
    assert was_standby(second)
    skip = {"workloads", "speedup", "speedup_geomean", "speedup_over_baseline", "latency_ms", "seconds", "started"}
    assert second.model_dump(exclude=skip) == first.model_dump(exclude=skip)
    assert second.started > first.started
    wait_for(lambda: is_gone(ahead))  # it answers first
    assert standby(bench).pid != ahead.pid


def test_a_standby_judges_one_kernel_and_what_that_prints_is_its_own(bench: Bench) -> None:
    judge(bench)
    standby(bench)
    (bench.folder / "dies.py").write_text("import os\n\n\ndef run(hidden_states, weight):\n    os._exit(3)\n")
    died = judge(bench, "dies.py")
    assert was_standby(died)
    assert "exited with code 3" in died.error
    standby(bench)
    (bench.folder / "other.py").write_text("print('said')\n" + (bench.folder / "kernel.py").read_text())
    other = judge(bench, "other.py")
    assert was_standby(other) and other.correct
    assert "said" in other.log
    assert other.kernel_sha256 != died.kernel_sha256


def test_a_caller_that_is_killed_takes_the_standby_that_judges_for_it_with_it(bench: Bench) -> None:
    judge(bench)
    ahead = standby(bench)
    asked = start(bench, "sleeper.py")
    wait_for(lambda: not waiting(ahead))
    asked.kill()
    asked.communicate()
    wait_for(lambda: is_gone(ahead))


def waiting(process: psutil.Process) -> bool:
    """Whether it has no caller yet: its output is still the parent's log."""
    return os.readlink(f"/proc/{process.pid}/fd/1").endswith(".log")


def test_what_is_not_the_same_task_gets_a_fork_of_its_own(bench: Bench) -> None:
    judge(bench)
    ahead = standby(bench)
    bench.config.write_text(bench.config.read_text() + "# changed\n")
    changed = judge(bench)
    assert changed.correct and not was_standby(changed)
    assert is_gone(ahead)
    judge(bench)
    ahead = standby(bench)
    elsewhere = judge(bench, device="another")
    assert elsewhere.correct and not was_standby(elsewhere)
    assert is_gone(ahead)


def test_there_is_none_for_tasks_that_take_turns(tmp_path: Path) -> None:
    server = Server(tmp_path / "socket", "", 1.0, lambda request: 0, kind_of=lambda request: request["kind"])
    expected = []
    with socket.socket() as caller:
        for kind in ("a", "a", "b", "a", "b", "b", None, None):
            assert server._hand_to_standby({"kind": kind}, [], caller) is None
            expected.append(server._expected and server._expected[0])
    assert expected == [None, "a", None, None, None, "b", None, None]


def test_what_a_dismissed_standby_left_is_removed_when_it_is_gone(tmp_path: Path) -> None:
    gone: list[bool] = []
    server = Server(tmp_path / "socket", "", 1.0, lambda request: 0, clean_up=lambda pid: gone.append(not exists(pid)))
    sleeper = subprocess.Popen(["sleep", "100"])
    with socket.socket() as connection:
        more = (os.pidfd_open(sleeper.pid), connection, ExitStack(), os.eventfd(0))
        server._standby = _Standby("kind", sleeper.pid, *more)
        server._poller.register(server._standby.pidfd)
        server._dismiss()
    assert gone[-1]
    assert server._standby is None


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_standby_that_is_killed_is_not_missed(bench: Bench) -> None:
    judge(bench)
    ahead = standby(bench)
    candidate = ahead.children()[0]
    ahead.send_signal(signal.SIGKILL)
    wait_for(lambda: is_gone(candidate))
    wait_for(lambda: not family(bench))
    assert judge(bench).correct


def test_nobody_stands_by_while_another_has_the_device(bench: Bench) -> None:
    log = parent_of(read_config(bench.config), CPU).socket.with_suffix(".log")
    with lock_of(bench):
        judge(bench)
        wait_for(lambda: "nobody stands by" in log.read_text())
        wait_for(lambda: not family(bench))
        following = judge(bench)
    assert following.correct and not was_standby(following)


def test_a_standby_goes_with_its_parent(bench: Bench) -> None:
    judge(bench)
    ahead = standby(bench)
    candidate = ahead.children()[0]
    bench.parents()[0].kill()
    wait_for(lambda: is_gone(ahead) and is_gone(candidate))


def test_a_parent_that_is_idle_for_too_long_takes_its_standby_with_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(LOCK_FOLDER, str(tmp_path))
    bench = Bench(tmp_path, warm_idle_s=2.0).prepare()
    judge(bench)
    judge(bench)
    ahead = standby(bench)
    wait_for(lambda: not bench.parents())
    assert is_gone(ahead)
