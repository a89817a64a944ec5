"""The simulated searches: every strategy runs, and what is known beforehand comes out."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from conftest import REPOSITORY

spec = importlib.util.spec_from_file_location("search_benchmark", REPOSITORY / "benchmarks" / "search.py")
benchmark = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = benchmark
spec.loader.exec_module(benchmark)


@pytest.mark.parametrize("name", [*benchmark.STRATEGIES, *benchmark.MIXTURES])
def test_every_search_runs_and_repeats(name: str) -> None:
    keys = (benchmark.STRATEGIES | benchmark.MIXTURES)[name]
    curve = benchmark.search(keys, 12, 3, 0.01, benchmark.EASY)
    assert len(curve["share"]) == len(curve["minutes"]) == 12
    assert all(0 <= share <= 1 for share in curve["share"])
    assert curve["minutes"] == sorted(curve["minutes"])
    assert curve == benchmark.search(keys, 12, 3, 0.01, benchmark.EASY)


def test_no_program_is_over_the_optimum() -> None:
    random = np.random.default_rng(0)
    operator = benchmark.Operator(random)
    for _ in range(500):
        changes = frozenset(np.flatnonzero(random.random(benchmark.CHANGES) < 0.5).tolist())
        program = benchmark.Program(int(random.integers(benchmark.DESIGNS)), changes, True, 0.0)
        assert operator.speed(program) <= operator.optimum + 1e-9
    best = max(
        operator.speed(benchmark.Program(design, frozenset(np.flatnonzero(gains > 0).tolist()), True, 0.0))
        for design, gains in enumerate(operator.gains)
    )
    assert best == pytest.approx(operator.optimum)


def test_waiting_is_for_what_a_step_reads_and_for_the_device() -> None:
    """Answers of 30 s and verdicts of 2 s: one after the other, all at once on one device, and without an answer."""

    class Same:
        def normal(self, mean: float, spread: float, size: int) -> np.ndarray:
            return np.zeros(size)

    def minutes(steps: list[tuple[int, bool, bool]]) -> list[float]:
        return [round(one * 60, 6) for one in benchmark.wall_time(steps, Same())]

    assert minutes([(0, True, True), (1, True, True)]) == pytest.approx([32, 64])
    assert minutes([(0, True, True)] * 3) == pytest.approx([32, 34, 36])
    # A duplicate is not judged, and a sweep's trial waits for no answer; only asked steps are told.
    assert minutes([(0, True, True), (1, False, True), (2, True, False)]) == pytest.approx([32, 64])
