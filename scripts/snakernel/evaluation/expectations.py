"""What a kernel's outputs are compared with, made ahead while the judge would only wait for the kernel's process."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from flashinfer_bench.bench.evaluators import resolve_evaluator
from flashinfer_bench.bench.evaluators.sampling import SamplingEvaluator
from flashinfer_bench.compile.runnable import Runnable, RunnableMetadata
from flashinfer_bench.data import Definition, Workload

from snakernel.evaluation import inputs as drawing
from snakernel.evaluation.reference import read_expected
from snakernel.evaluation.verdict import ReferenceWorkload, Settings

DRAWN = ("drawn by the candidate",)
"""In place of inputs: the candidate draws them itself."""
AHEAD_BYTES = 2**30
"""Outputs that are kept ahead; what a large workload expects is made when it is needed."""
AHEAD_S = 2.0
"""Longest time that is spent on making outputs ahead at once: the candidate's process is not watched meanwhile."""


class Expectations:
    """The expected outputs of every draw of every workload. It lives in the judge's process alone."""

    def __init__(
        self,
        definition: Definition,
        workloads: list[Workload],
        records: list[ReferenceWorkload],
        folder: Path,
        settings: Settings,
        kind: str,
        dataset: Path,
    ):
        """Nothing is made yet.

        Args:
            definition: whose outputs they are.
            workloads: what they are of.
            records: the reference's records of the same.
            folder: where the reference's kept outputs are.
            settings: seed and number of draws.
            kind: cuda or cpu.
            dataset: where the workloads' blobs are.
        """
        self._definition, self._workloads, self._records = definition, workloads, records
        self._folder, self._settings, self._kind, self._dataset = folder, settings, kind, dataset
        self._evaluator = resolve_evaluator(definition)
        self.needs_inputs = issubclass(self._evaluator, SamplingEvaluator)
        """Whether flashinfer-bench's evaluator makes the kernel's inputs itself."""
        self._kept: dict[tuple[int, int], list[torch.Tensor]] = {}
        self._kept_bytes = 0
        # One more than the trials: for the check after the timing.
        count = 0 if self.needs_inputs else settings.num_trials + 1
        self._ahead = itertools.product(range(len(workloads)), range(count))
        self._compared = False

    def of(self, index: int, draw: int) -> tuple[list[torch.Tensor], list[Any]]:
        """What a draw of a workload is compared with, and what the evaluator gives the kernel: :data:`DRAWN`, or inputs
        of its own."""
        if (index, draw) in self._kept:
            return self._kept[index, draw], list(DRAWN)
        record, workload = self._records[index], self._workloads[index]
        stored = read_expected(self._folder, record, draw, len(self._definition.outputs), self._kind)
        if stored is not None:
            return stored, list(DRAWN)
        seed = drawing.draw_seed(self._settings.seed, workload, draw)
        made = drawing.draw_expected(self._definition, workload, seed, self._kind, self._dataset)
        return made.expected, made.inputs if self.needs_inputs else list(DRAWN)

    def make_ahead(self, enough: Callable[[], bool], seconds: float = AHEAD_S) -> None:
        """Make what will be needed next, until ``enough`` says so, for some seconds at most; the first time, compare it
        too: that loads what all others use."""
        deadline = time.monotonic() + seconds
        while not enough() and time.monotonic() < deadline and self._kept_bytes < AHEAD_BYTES:
            key = next(self._ahead, None)
            if key is None:
                return
            if key in self._kept or self._records[key[0]].output_bytes > AHEAD_BYTES - self._kept_bytes:
                continue
            self._kept[key] = self.of(*key)[0]
            self._kept_bytes += self._records[key[0]].output_bytes
            if not self._compared:
                self._compare(self._kept[key])

    def forget(self, index: int) -> None:
        """Drop what was kept of a workload, and of those before it."""
        for key in [key for key in self._kept if key[0] <= index]:
            del self._kept[key]
            self._kept_bytes -= self._records[key[0]].output_bytes

    def _compare(self, expected: list[torch.Tensor]) -> None:
        """Compare outputs with themselves: the first comparison on a device loads what all others use."""
        self._compared = True
        metadata = RunnableMetadata(
            build_type="expected",
            definition_name=self._definition.name,
            solution_name="expected",
            destination_passing_style=False,
            definition=self._definition,
        )
        self._evaluator.check_correctness(
            definition=self._definition,
            sol_runnable=Runnable(lambda *inputs: tuple(expected), metadata),
            inputs=[list(DRAWN)],
            ref_outputs=[expected],
            cfg=drawing.benchmark_config(self._settings),
            log_path="",
            device=drawing.device_name(self._kind),
        )
