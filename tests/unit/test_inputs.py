"""The memory and the values that timed calls get."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MINI


@pytest.fixture
def contents(judged: object):
    """What calls on a workload of rmsnorm_h256 get."""
    from snakernel.dataset import Task, check_task
    from snakernel.evaluation import inputs

    definition, (_, workload) = check_task(Task("rmsnorm", "rmsnorm_h256"), MINI, 2)
    return inputs.Contents(definition, workload, 7, "cpu", Path(MINI))


def test_timed_calls_get_the_memory_of_warm_up_calls_and_never_the_values_of_an_earlier_call(contents) -> None:
    warm = [contents.prepare(number - 10, False)[0] for number in range(10)]
    places, seen = {one.data_ptr() for one in warm}, [one.clone() for one in warm]
    assert len(places) == 2
    timed = set()
    for number in range(24):
        values = contents.prepare(number, False)[0]
        timed.add(values.data_ptr())
        assert all(bool((values != one).any()) for one in seen)
        seen.append(values.clone())
    assert timed == places
