"""The memory and the values that timed calls get."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MINI


@pytest.fixture
def contents(judged: object, monkeypatch: pytest.MonkeyPatch):
    """A function from the number of warm-up calls to what a device's calls on a workload of rmsnorm_h256 get."""
    from snakernel.dataset import Task, check_task
    from snakernel.evaluation import inputs

    monkeypatch.setattr(inputs, "device_name", lambda kind: "cpu")
    definition, (_, workload) = check_task(Task("rmsnorm", "rmsnorm_h256"), MINI, 2)
    return lambda **more: inputs.Contents(definition, workload, 7, "cuda", Path(MINI), **more)


@pytest.mark.parametrize(("warmup_runs", "places"), [(0, 2), (3, 3), (10, 8)])
def test_every_place_has_been_used_before_a_timed_call(contents, warmup_runs: int, places: int) -> None:
    made = contents(warmup_runs=warmup_runs)
    warm = {made.prepare(number - warmup_runs, False)[0].data_ptr() for number in range(warmup_runs)}
    timed = [made.prepare(number, False)[0].data_ptr() for number in range(24)]
    assert len(set(timed)) == places
    assert not warmup_runs or set(timed) == warm


def test_no_timed_call_gets_values_of_an_earlier_one(contents) -> None:
    made = contents(warmup_runs=10)
    seen = [made.prepare(number - 10, False)[0].clone() for number in range(10)]
    for number in range(24):
        values = made.prepare(number, False)[0]
        assert all(bool((values != one).any()) for one in seen)
        seen.append(values.clone())


def test_small_tensors_have_more_places_than_large_ones(contents, monkeypatch: pytest.MonkeyPatch) -> None:
    from snakernel.evaluation import inputs

    monkeypatch.setattr(inputs, "SETS_BYTES", 5 * sum(one.nbytes for one in contents(warmup_runs=10)._source))
    assert len(contents(warmup_runs=10)._sets) == 5
    monkeypatch.setattr(inputs, "SETS_BYTES", 1)
    assert len(contents(warmup_runs=10)._sets) == inputs.MIN_SETS
