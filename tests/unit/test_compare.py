"""Two kernels timed in turns."""

from __future__ import annotations

from pathlib import Path

import pytest
from zoo import HONEST, honest_but

COUNTS = """
import os
COUNT = os.environ["FIB_CACHE_PATH"] + "/count"
with open(COUNT, "a") as file:
    file.write("x")
if os.path.getsize(COUNT) == {number}:
    raise RuntimeError("process {number}")
"""


@pytest.fixture
def in_turns(judged, monkeypatch: pytest.MonkeyPatch):
    """A function that compares the honest kernel with another, and has the given seconds for it."""
    from snakernel.config import load_config
    from snakernel.dataset import Task, check_task
    from snakernel.evaluation import compare
    from snakernel.evaluation.solution import make_solution
    from snakernel.evaluation.verdict import Settings

    root = Path(__file__).parents[2] / "datasets" / "mini"
    keys = {"eval_backend": "cpu", "warmup_runs": 0, "iterations": 2, "max_workloads": 1}
    settings = Settings.of(load_config({"dataset_root": str(root), "test_source": "mini"} | keys))
    definition, workloads = check_task(Task("rmsnorm", "rmsnorm_h256"), root, 1)

    def compared(kernel: str, budget_s: float) -> compare.Ratio:
        monkeypatch.setattr(compare, "BUDGET_S", budget_s)
        solutions = tuple(make_solution(definition, code) for code in (HONEST, kernel))
        return compare.compare(definition, workloads, solutions, settings, root, hidden=[])

    return compared


@pytest.mark.parametrize(("budget_s", "rounds"), [(60.0, 8), (0.0, 4)])
def test_there_are_as_many_rounds_as_the_time_allows(in_turns, budget_s: float, rounds: int) -> None:
    found = in_turns(HONEST, budget_s)
    assert found.rounds == rounds
    assert 0 < found.low <= found.ratio <= found.high


def test_each_round_has_a_new_process_that_finds_what_the_last_one_built(in_turns) -> None:
    from snakernel.evaluation.compare import CannotCompare

    with pytest.raises(CannotCompare, match="process 3") as told:
        in_turns(COUNTS.format(number=3) + HONEST, 0.0)
    assert told.value.args[0] == 1


def test_a_kernel_that_fails_when_it_is_timed_is_named(in_turns) -> None:
    from snakernel.evaluation.compare import CannotCompare

    with pytest.raises(CannotCompare, match="on purpose") as told:
        in_turns(honest_but("raise ValueError('on purpose')"), 0.0)
    assert told.value.args[0] == 1


def test_the_two_take_turns_in_who_is_there_first(in_turns, monkeypatch: pytest.MonkeyPatch) -> None:
    from snakernel.evaluation import compare

    scratches: list[Path] = []

    class Noted(compare.Candidate):
        def __init__(self, *arguments, sandbox, **more):
            scratches.append(sandbox.scratch)
            super().__init__(*arguments, sandbox=sandbox, **more)

    monkeypatch.setattr(compare, "Candidate", Noted)
    in_turns(HONEST, 0.0)
    first, second = scratches[:2]
    assert scratches == [first, second, second, first] * 2
