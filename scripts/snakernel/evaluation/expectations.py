"""What a kernel's outputs are compared with, made ahead while the judge would only wait for the kernel's process."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from flashinfer_bench.data import Definition, Workload

from snakernel.evaluation import inputs as drawing
from snakernel.evaluation.correctness import Correctness
from snakernel.evaluation.reference import read_expected
from snakernel.evaluation.verdict import ReferenceWorkload, Settings

AHEAD_BYTES = 2**31
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
        correctness: Correctness,
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
            correctness: what they are for: it is used once, when the first of them is made ahead.
        """
        self._definition, self._workloads, self._records = definition, workloads, records
        self._folder, self._settings, self._kind, self._dataset = folder, settings, kind, dataset
        self._kept: dict[tuple[int, int], list[torch.Tensor]] = {}
        self._kept_bytes = 0
        # One more than the trials: for the check after the timing.
        count = 0 if correctness.needs_inputs else settings.num_trials + 1
        self._ahead = itertools.product(range(len(workloads)), range(count))
        self._warm_up: Callable[[list[torch.Tensor]], None] | None = correctness.warm_up

    def of(self, index: int, draw: int) -> list[torch.Tensor]:
        """What a draw of a workload is compared with."""
        if (index, draw) in self._kept:
            return self._kept[index, draw]
        record = self._records[index]
        stored = read_expected(self._folder, record, draw, len(self._definition.outputs), self._kind)
        return self._draw(index, draw).expected if stored is None else stored

    def with_inputs(self, index: int) -> tuple[list[Any], list[torch.Tensor]]:
        """The inputs of a workload's first draw, and what flashinfer-bench's evaluator compares with."""
        made = self._draw(index, 0)
        return made.inputs, made.expected

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
            self._kept[key] = self.of(*key)
            self._kept_bytes += self._records[key[0]].output_bytes
            if self._warm_up is not None:
                self._warm_up(self._kept[key])
                self._warm_up = None

    def forget(self, index: int) -> None:
        """Drop what was kept of a workload, and of those before it."""
        for key in [key for key in self._kept if key[0] <= index]:
            del self._kept[key]
            self._kept_bytes -= self._records[key[0]].output_bytes

    def _draw(self, index: int, draw: int) -> drawing.Draw:
        workload = self._workloads[index]
        seed = drawing.draw_seed(self._settings.seed, workload, draw)
        return drawing.draw_expected(self._definition, workload, seed, self._kind, self._dataset)
