"""Whether a kernel's outputs are right: flashinfer-bench's evaluator of the definition decides, with its tolerances."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from flashinfer_bench.bench.evaluators import resolve_evaluator
from flashinfer_bench.bench.evaluators.default import DefaultEvaluator
from flashinfer_bench.bench.evaluators.sampling import SamplingEvaluator
from flashinfer_bench.compile.runnable import Runnable, RunnableMetadata
from flashinfer_bench.data import Definition

from snakernel.evaluation import inputs as drawing
from snakernel.evaluation.candidate import writable
from snakernel.evaluation.verdict import Settings, Status, WorkloadResult

DRAWN = ("drawn by the candidate",)
"""In place of inputs: the candidate draws them itself."""
STACK_BYTES = 2**28
"""Outputs of several draws that are compared as one; larger ones keep the device busy one by one, and take memory."""


@dataclass
class Found:
    """What a kernel's call on a draw left."""

    outputs: Any
    """A tensor, a number, or a list of them."""
    written: list[str]
    """The inputs that it wrote to."""


class Correctness:
    """flashinfer-bench's evaluator of a definition, and what a verdict says of what it refuses. It lives in the judge's
    process."""

    def __init__(self, definition: Definition, settings: Settings, kind: str):
        """``kind`` is cuda or cpu; of the settings the tolerances count."""
        self._definition, self._device = definition, drawing.device_name(kind)
        self._evaluator, self._config = resolve_evaluator(definition), drawing.benchmark_config(settings)
        self._metadata = RunnableMetadata(
            build_type="remote",
            definition_name=definition.name,
            solution_name="candidate",
            destination_passing_style=False,
            definition=definition,
        )
        self.needs_inputs = issubclass(self._evaluator, SamplingEvaluator)
        """Whether the evaluator makes the kernel's inputs itself."""
        # What passes when each of its elements does: outputs of several draws do as one exactly when all of them do.
        self._by_element = self._evaluator is DefaultEvaluator and settings.required_matched_ratio in (None, 1)

    def check_drawn(
        self, result: WorkloadResult, found: list[Found], expected: list[list[torch.Tensor]], *, timed: bool = False
    ) -> None:
        """Compare what a kernel returned for some draws; the first difference ends in the result.

        Args:
            result: of the workload; its status is PASSED so far.
            found: what the kernel left, draw by draw.
            expected: the outputs that each is compared with, in the definition's order.
            timed: in calls that were timed, after others had passed.
        """
        self._check_outputs(result, found, expected)
        if result.status is not Status.PASSED and timed:
            result.status = Status.REJECTED
            result.error = (
                "right before it was timed, wrong in a timed call, which had new values in the same memory: results "
                f"are kept from one call to another, or the work is not done in the call ({result.error})"
            )
        refuse_writing(result, [name for one in found for name in one.written])

    def check_called(self, result: WorkloadResult, run: Callable[..., Any], inputs: list[Any], expected: Any) -> None:
        """Have the evaluator call a kernel itself, as often as it likes, on ``inputs``."""
        status, told, errors = self._evaluate(run, inputs, expected)
        _add(result, errors)
        if status is not Status.PASSED:
            result.status, result.error = status, told

    def warm_up(self, expected: list[torch.Tensor]) -> None:
        """Compare outputs with themselves: the first comparison on a device loads what all others use."""
        scratch = WorkloadResult(uuid="", axes={}, status=Status.PASSED)
        self.check_drawn(scratch, [Found(expected, [])] * 2, [expected] * 2)

    def _check_outputs(self, result: WorkloadResult, found: list[Found], expected: list[list[torch.Tensor]]) -> None:
        rows = [one.outputs if isinstance(one.outputs, list) else [one.outputs] for one in found]
        if self._may_be_stacked(rows, expected):
            outputs, wanted = ([torch.stack(one) for one in zip(*each, strict=True)] for each in (rows, expected))
            status, _, errors = self._evaluate(partial(_give, outputs), list(DRAWN), wanted)
            if status is Status.PASSED:
                _add(result, errors)
                return
        for one, want in zip(found, expected, strict=True):
            status, told, errors = self._evaluate(partial(_give, one.outputs), list(DRAWN), want)
            _add(result, errors)
            if status is not Status.PASSED:
                mismatch = "" if status is Status.RUNTIME_ERROR else self._mismatch(one.outputs, want)
                result.status, result.error = status, mismatch or told
                return

    def _may_be_stacked(self, found: list[list[Any]], expected: list[list[torch.Tensor]]) -> bool:
        """Whether the outputs of several draws can be compared as those of one, which takes the device as long as one
        of them: small ones that are at least what they should look like."""
        if len(found) < 2 or not self._by_element or sum(one.nbytes for want in expected for one in want) > STACK_BYTES:
            return False
        return all(
            len(outputs) == len(want)
            and all(
                isinstance(got, torch.Tensor)
                and (got.shape, got.dtype, got.device) == (wanted.shape, wanted.dtype, wanted.device)
                for got, wanted in zip(outputs, want, strict=True)
            )
            for outputs, want in zip(found, expected, strict=True)
        )

    def _evaluate(self, run: Callable[..., Any], inputs: list[Any], expected: Any) -> tuple[Status, str, Any]:
        """The evaluator's status, the last line of what it prints, and the errors that it found, if it came to that."""
        quiet = io.StringIO()
        with contextlib.redirect_stderr(quiet):
            errors, refusal = self._evaluator.check_correctness(
                definition=self._definition,
                sol_runnable=Runnable(run, self._metadata),
                inputs=[inputs],
                ref_outputs=[expected],
                cfg=self._config,
                log_path="",
                device=self._device,
            )
        if refusal is None:
            return Status.PASSED, "", errors
        # It prints a message, or a traceback through our own code: its last line is the message.
        return Status(refusal.status.value), writable(quiet.getvalue().strip().rpartition("\n")[2][-2000:]), errors

    def _mismatch(self, outputs: Any, expected: list[torch.Tensor]) -> str:
        """Where outputs differ from what was expected, in words: shape, dtype, or the first wrong elements."""
        found, names = outputs if isinstance(outputs, list) else [outputs], list(self._definition.outputs)
        if len(found) != len(names):
            return f"run returned {len(found)} outputs, the definition has {len(names)}"
        for name, got, want in zip(names, found, expected, strict=False):
            if not isinstance(got, torch.Tensor):
                got = torch.tensor(got)
            if tuple(got.shape) != tuple(want.shape):
                return f"output {name!r} has shape {list(got.shape)}, expected {list(want.shape)}"
            if got.dtype != want.dtype:
                return f"output {name!r} is {got.dtype}, expected {want.dtype}"
            x, y = got.to(torch.float32), want.to(torch.float32)
            off = (x - y).abs()
            relative = off / (y.abs() + 1e-8)
            wrong = ~torch.isfinite(x) | ((off > self._config.atol) & (relative > self._config.rtol))
            count = int(wrong.sum())
            if not count:
                continue
            where = wrong.nonzero()[:3].tolist()
            shown = "; ".join(
                f"{name}[{', '.join(map(str, at))}] is {x[tuple(at)].item():.6g}, expected {y[tuple(at)].item():.6g}"
                for at in where
            )
            share = 100 * count / wrong.numel()
            return f"output {name!r}: {count} of {wrong.numel()} elements ({share:.3g} %) are wrong: {shown}"
        return ""


def refuse_writing(result: WorkloadResult, written: list[str]) -> None:
    """End a result where the kernel wrote to some of its inputs."""
    if result.status is Status.PASSED and written:
        result.status = Status.REJECTED
        result.error = f"it writes to its input {', '.join(map(repr, written))}; work on a copy"


def _give(outputs: Any, *_: Any) -> Any:
    return outputs


def _add(result: WorkloadResult, errors: Any) -> None:
    """Keep the largest errors of all draws."""
    if errors is not None:
        result.max_absolute_error = max(result.max_absolute_error or 0.0, errors.max_absolute_error)
        result.max_relative_error = max(result.max_relative_error or 0.0, errors.max_relative_error)
