"""Outputs of several draws are compared as one: the same verdict as one by one, in fewer steps of the device."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import MINI

if TYPE_CHECKING:
    from snakernel.evaluation.correctness import Correctness
    from snakernel.evaluation.verdict import WorkloadResult

SHAPE, DRAWS = (5, 96), 3
Change = Callable[[torch.Tensor], Any]


def wrong_by(value: float) -> Change:
    def change(output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[2, 7] = changed[2, 7] + value
        return changed

    return change


CHANGES: dict[str, Change] = {
    "nothing": lambda output: output,
    "rounding": wrong_by(0.004),
    "an element": wrong_by(1.0),
    "not a number": wrong_by(float("nan")),
    "infinity": wrong_by(float("inf")),
    "the shape": lambda output: output[:4],
    "the dtype": lambda output: output.to(torch.float32),
    "a number instead": lambda output: 1.0,
    "two outputs": lambda output: [output, output],
}


@pytest.fixture
def correctness(judged: object) -> Callable[..., Correctness]:
    """A function from settings to rmsnorm_h256's, on the CPU."""
    from flashinfer_bench.data import Definition
    from snakernel.config import load_config
    from snakernel.evaluation.correctness import Correctness
    from snakernel.evaluation.verdict import Settings

    text = next(MINI.glob("definitions/*/rmsnorm_h256.json")).read_text()
    settings = Settings.of(load_config({"eval_backend": "cpu"}))
    definition = Definition(**json.loads(text))
    return lambda **changes: Correctness(definition, settings.model_copy(update=changes), "cpu")


def compare(made: Correctness, changes: list[Change], written: tuple[str, ...] = ()) -> tuple[WorkloadResult, int]:
    """The result for draws of which each output is changed so, and how often the evaluator was asked."""
    from snakernel.evaluation.correctness import Found
    from snakernel.evaluation.verdict import Status, WorkloadResult

    torch.manual_seed(7)
    expected = [torch.randn(SHAPE).to(torch.bfloat16) for _ in changes]
    found = [Found(change(one), list(written)) for change, one in zip(changes, expected, strict=True)]
    result = WorkloadResult(uuid="", axes={}, status=Status.PASSED)
    asked, evaluate = [], made._evaluate
    made._evaluate = lambda *arguments: (asked.append(1), evaluate(*arguments))[1]
    made.check_drawn(result, found, [[one] for one in expected])
    return result, len(asked)


@pytest.mark.parametrize("at", range(DRAWS))
@pytest.mark.parametrize("change", CHANGES)
def test_draws_are_judged_together_as_they_are_one_by_one(correctness, change: str, at: int) -> None:
    changes = [CHANGES["rounding"] if draw != at else CHANGES[change] for draw in range(DRAWS)]
    together, asked = compare(correctness(), changes)
    alone = correctness()
    alone._by_element = False
    expected, _ = compare(alone, changes)
    assert (together.status, together.error) == (expected.status, expected.error)
    assert together.max_absolute_error == pytest.approx(expected.max_absolute_error, nan_ok=True)
    assert together.max_relative_error == pytest.approx(expected.max_relative_error, nan_ok=True)
    passes = change in ("nothing", "rounding")
    assert (together.status.value == "PASSED") == passes
    assert not passes or asked == 1


def test_a_share_of_wrong_elements_that_is_allowed_is_allowed_of_each_draw(correctness) -> None:
    # One wrong element of 1,440: fewer than 0.15 % of all, more than that of its own draw.
    changes = [CHANGES["an element"], CHANGES["nothing"], CHANGES["nothing"]]
    for ratio, status in ((0.9985, "INCORRECT_NUMERICAL"), (0.99, "PASSED")):
        result, asked = compare(correctness(required_matched_ratio=ratio), changes)
        assert result.status.value == status
        assert asked == (DRAWS if status == "PASSED" else 1)


def test_a_kernel_that_writes_to_its_inputs_is_refused_though_its_outputs_are_right(correctness) -> None:
    result, _ = compare(correctness(), [CHANGES["nothing"]] * DRAWS, ("weight",))
    assert result.status.value == "REJECTED"
    assert result.error.startswith("it writes to its input 'weight'")
