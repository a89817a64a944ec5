"""Two kernels timed in turns: what changes meanwhile (clocks, temperature, other work) changes for both."""

from __future__ import annotations

import contextlib
import math
import random
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flashinfer_bench.data import Definition, Solution, Workload

from snakernel.evaluation.candidate import Allowance, Candidate, CandidateDied, CandidateError
from snakernel.evaluation.reference import timed_seeds
from snakernel.evaluation.sandbox import Sandbox, blob_folders
from snakernel.evaluation.timing import median_interval
from snakernel.evaluation.verdict import Settings

ROUNDS = 8
# Quantiles of Student's t for two-sided 95 %, by degrees of freedom.
_T = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120)


class CannotCompare(Exception):
    """A kernel failed while it was timed against another; ``args`` are its position, 0 or 1, and what went wrong."""


@dataclass(frozen=True)
class Ratio:
    """Latency of the second kernel over that of the first."""

    ratio: float
    """Geometric mean over workloads and rounds."""
    low: float
    """Lower end of the 95 % interval over the rounds."""
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
    rounds: int = ROUNDS,
    hidden: list[Path],
) -> Ratio:
    """Time two kernels in turns. Both must be known to be correct: nothing is checked here.

    CUDA must not have been started in this process: each kernel has a process of its own, forked from it.

    Args:
        definition: what they compute.
        workloads: what they are timed on.
        solutions: the two kernels.
        settings: calls, limits, device and seed.
        dataset: where blobs are.
        rounds: at least 2.
        hidden: folders that they must not see.

    Raises:
        CannotCompare: one of them failed.
    """
    kind = "cpu" if settings.eval_backend == "cpu" else "cuda"
    order = random.Random(settings.seed)
    logs: list[float] = []
    with contextlib.ExitStack() as stack:
        candidates = [stack.enter_context(_started(definition, workloads, kind, dataset, hidden)) for _ in solutions]
        for number, (candidate, solution) in enumerate(zip(candidates, solutions, strict=True)):
            _ask(number, candidate, "build", solution, settings=settings)
        for turn in range(rounds):
            warmup_runs = settings.warmup_runs if turn == 0 else min(settings.warmup_runs, 2)
            ratios = []
            for index, workload in order.sample(list(enumerate(workloads)), len(workloads)):
                medians = [0.0, 0.0]
                for number in order.sample((0, 1), 2):
                    arguments = (index, timed_seeds(settings.seed, workload), [], warmup_runs)
                    times = _ask(
                        number,
                        candidates[number],
                        "time",
                        *arguments,
                        settings.iterations,
                        settings.timing_budget_s / rounds,
                        settings=settings,
                    )
                    medians[number] = _median(number, times)
                ratios.append(math.log(medians[1] / medians[0]))
            logs.append(statistics.fmean(ratios))
    mean = statistics.fmean(logs)
    reach = _T[min(rounds - 2, len(_T) - 1)] * statistics.stdev(logs) / math.sqrt(rounds)
    return Ratio(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach), rounds)


@contextlib.contextmanager
def _started(
    definition: Definition, workloads: list[Workload], kind: str, dataset: Path, hidden: list[Path]
) -> Iterator[Candidate]:
    scratch = Path(tempfile.mkdtemp(prefix="snakernel-"))
    try:
        sandbox = Sandbox.plan(scratch, blob_folders(workloads, dataset), hidden=hidden)
        candidate = Candidate(definition, workloads, kind=kind, dataset=dataset, sandbox=sandbox)
        try:
            yield candidate
        finally:
            candidate.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _ask(number: int, candidate: Candidate, command: str, *arguments: object, settings: Settings) -> dict:
    try:
        return candidate.request(command, *arguments, allowance=Allowance(settings.eval_timeout_s))
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
