"""Two kernels timed in turns: what changes meanwhile (clocks, temperature, other work) changes for both."""

from __future__ import annotations

import contextlib
import math
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashinfer_bench.data import Definition, Solution, Workload

from snakernel.evaluation.candidate import Allowance, Candidate, CandidateDied, CandidateError
from snakernel.evaluation.reference import timed_seed
from snakernel.evaluation.sandbox import Sandbox, blob_folders
from snakernel.evaluation.timing import median_interval
from snakernel.evaluation.verdict import Settings

ROUNDS, MIN_ROUNDS = 8, 4
BUDGET_S = 60.0
"""After this time there is no further round, once there are MIN_ROUNDS: some kernels take minutes to build or tune."""
# Quantiles of Student's t for two-sided 99 %, by degrees of freedom. With 95 %, one comparison of equal kernels in
# twenty would find a difference, and a task has several.
_T = (63.66, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499)


class CannotCompare(Exception):
    """A kernel failed while it was timed against another; ``args`` are its position, 0 or 1, and what went wrong."""


@dataclass(frozen=True)
class Ratio:
    """Latency of the second kernel over that of the first."""

    ratio: float
    """Geometric mean over workloads and rounds."""
    low: float
    """Lower end of the 99 % interval over the rounds."""
    high: float
    """Upper end of it."""
    rounds: int
    """How many rounds there were."""


def compare(
    definition: Definition,
    workloads: list[Workload],
    solutions: tuple[Solution, Solution],
    settings: Settings,
    dataset: Path,
    *,
    hidden: list[Path],
) -> Ratio:
    """Time two kernels in turns. Both must be known to be correct: nothing is checked here.

    In each round, each kernel has a new process: the latency of one kernel differs from one process to another by more
    than it does within one, so that rounds in the same two processes would tell of these and not of the kernels. Which
    of the two processes is there first, and has the device's memory first, takes turns. CUDA must not have been started
    in this process, which they are forked from.

    Args:
        definition: what they compute.
        workloads: what they are timed on.
        solutions: the two kernels.
        settings: calls, limits, device and seed.
        dataset: where blobs are.
        hidden: folders that they must not see.

    Raises:
        CannotCompare: one of them failed.
    """
    kind = "cpu" if settings.eval_backend == "cpu" else "cuda"
    order = random.Random(settings.seed)
    logs: list[float] = []
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        sandboxes = [stack.enter_context(_sandbox(workloads, dataset, hidden)) for _ in solutions]
        while len(logs) < MIN_ROUNDS or (len(logs) < ROUNDS and time.monotonic() - begun < BUDGET_S):
            candidates = {}
            for number in (0, 1) if len(logs) % 2 else (1, 0):
                sandbox = sandboxes[number]
                candidates[number] = Candidate(definition, workloads, kind=kind, dataset=dataset, sandbox=sandbox)
                stack.callback(candidates[number].close)
            _ask_both(candidates, [("start",), ("start",)], settings)
            _ask_both(candidates, [("build", solution) for solution in solutions], settings)
            logs.append(_round(candidates, workloads, settings, order))
            for candidate in candidates.values():
                candidate.end()  # which takes CUDA a while: the next ones start meanwhile
    mean = statistics.fmean(logs)
    reach = _T[len(logs) - 2] * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach), len(logs))


def _round(
    candidates: dict[int, Candidate], workloads: list[Workload], settings: Settings, order: random.Random
) -> float:
    """Time every workload for both kernels, in an order that is drawn; returns the mean logarithm of the ratio."""
    ratios = []
    for index, workload in order.sample(list(enumerate(workloads)), len(workloads)):
        medians = [0.0, 0.0]
        for number in order.sample((0, 1), 2):
            seed = timed_seed(settings.seed, workload)
            limits = (settings.warmup_runs, settings.iterations, settings.timing_budget_s / ROUNDS)
            with _told(number):
                allowance = Allowance(settings.eval_timeout_s)
                times = candidates[number].request("time", index, seed, [], *limits, allowance=allowance)
            medians[number] = _median(number, times)
        ratios.append(math.log(medians[1] / medians[0]))
    return statistics.fmean(ratios)


@contextlib.contextmanager
def _sandbox(workloads: list[Workload], dataset: Path, hidden: list[Path]) -> Iterator[Sandbox]:
    """A folder for all processes of a kernel: what one builds there the next ones find."""
    scratch = Path(tempfile.mkdtemp(prefix="snakernel-"))
    try:
        yield Sandbox.plan(scratch, blob_folders(workloads, dataset), hidden=hidden)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _ask_both(candidates: dict[int, Candidate], commands: list[tuple[Any, ...]], settings: Settings) -> None:
    """Have both processes do something at the same time."""
    allowances = [Allowance(settings.eval_timeout_s) for _ in candidates]
    for number, candidate in candidates.items():
        with _told(number):
            candidate.begin(*commands[number], allowance=allowances[number])
    for number, candidate in candidates.items():
        with _told(number):
            candidate.finish(allowances[number])


@contextlib.contextmanager
def _told(number: int) -> Iterator[None]:
    try:
        yield
    except (CandidateError, CandidateDied) as error:
        raise CannotCompare(number, str(error)) from None


def _median(number: int, times: dict) -> float:
    try:
        calls = [float(value) for value in times["calls_ms"]]
        if calls and all(0 < value < math.inf for value in calls):
            return median_interval(calls)[0]
    except (LookupError, TypeError, ValueError):
        pass
    raise CannotCompare(number, "its process told of no times")
