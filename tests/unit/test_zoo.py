"""The zoo of tests/zoo.py in Triton's interpreter: no false pass, no false refusal, no dead judge."""

from __future__ import annotations

import pytest
import zoo


@pytest.mark.parametrize("name", [name for name, one in zoo.CHEATS.items() if not one.on_device])
def test_a_cheat_does_not_pass(judged, name: str) -> None:
    cheat = zoo.CHEATS[name]
    evaluation = judged(cheat.kernel, eval_timeout_s=60)
    assert evaluation.status in cheat.statuses, evaluation.error
    assert (evaluation.correct, evaluation.speedup) == (False, None)
    assert cheat.told in evaluation.error


@pytest.mark.parametrize("name", zoo.NO_GAIN)
def test_keeping_results_by_value_gains_nothing(judged, name: str) -> None:
    evaluation = judged(zoo.instead(zoo.NO_GAIN[name], "import time\nKEPT = {}\n"))
    assert evaluation.correct, evaluation.error
    assert all(one.latency.median_ms > 10 for one in evaluation.workloads)


@pytest.mark.parametrize("name", zoo.TIMER_PATCHES)
def test_a_timer_that_is_tampered_with_tells_the_truth(judged, name: str) -> None:
    evaluation = judged(zoo.honest_but("SLEEP(0.01)", "import time\nSLEEP = time.sleep\n" + zoo.TIMER_PATCHES[name]))
    assert evaluation.correct, evaluation.error
    assert all(one.latency.median_ms > 10 for one in evaluation.workloads)


@pytest.mark.parametrize("name", zoo.STYLES)
def test_an_honest_style_passes(judged, name: str) -> None:
    evaluation = judged(zoo.STYLES[name])
    assert evaluation.correct, evaluation.error
