"""A kernel whose process is killed: by itself, or by what has nothing to do with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluating import Bench, wait_for
from snakernel.evaluation.verdict import Evaluation
from snakernel.files import read_model


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("killed")).prepare()
    yield made
    made.close()


SLOW = """
import os
import time

child = os.fork()
if child == 0:
    time.sleep(1)
    os._exit(0)
os.waitpid(child, 0)
"""
"""It shows when it is imported: by a process of its own."""


def test_what_something_else_kills_is_judged_again(bench: Bench) -> None:
    (bench.folder / "slow.py").write_text(SLOW + (bench.folder / "kernel.py").read_text())
    caller = bench.start("slow.py")
    (judge,) = bench.parents()[0].children()
    (candidate,) = judge.children()
    wait_for(candidate.children)
    candidate.kill()
    assert caller.wait(timeout=60) == 0
    assert read_model(bench.folder / "evaluation.json", Evaluation).correct


def test_what_kills_itself_is_at_fault(bench: Bench) -> None:
    (bench.folder / "killed.py").write_text("import os\n\nos.kill(os.getpid(), 9)\n")
    evaluation = bench.judge(kernel="killed.py")
    assert evaluation.status == "COMPILE_ERROR"
    assert evaluation.error == "the kernel's process was ended by signal SIGKILL"


def test_a_verdict_leaves_nothing_to_a_parent_that_is_killed_meanwhile(bench: Bench) -> None:
    (bench.folder / "slow.py").write_text(SLOW + (bench.folder / "kernel.py").read_text())
    caller = bench.start("slow.py")
    (parent,) = bench.parents()
    opened = [os.readlink(one) for one in Path(f"/proc/{parent.pid}/fd").iterdir()]
    (scratch,) = [Path(name) for name in opened if "snakernel-scratch-" in name]
    assert scratch.is_dir()
    parent.suspend()
    assert caller.wait(timeout=60) == 0
    parent.kill()
    assert not scratch.exists()
