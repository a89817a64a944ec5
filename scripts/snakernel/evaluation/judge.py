"""The judge: it holds the expected outputs, compares, keeps the times and decides. It never imports a candidate."""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from flashinfer_bench.data import Definition, Solution, Workload

from snakernel.errors import UserError
from snakernel.evaluation import devices, roofline, timing
from snakernel.evaluation import inputs as drawing
from snakernel.evaluation.candidate import (
    DRAW_SLOTS,
    MAX_KERNELS,
    Allowance,
    Candidate,
    CandidateDied,
    CandidateError,
    CandidateTimeout,
    pack_inputs,
    writable,
)
from snakernel.evaluation.compile_ahead import CompileAhead, processes
from snakernel.evaluation.compiler import variant
from snakernel.evaluation.correctness import Correctness, Found, refuse_writing
from snakernel.evaluation.expectations import Expectations
from snakernel.evaluation.reference import definition_hash, timed_seed
from snakernel.evaluation.sandbox import Sandbox, blob_folders
from snakernel.evaluation.solution import kernel_sha256, source_of
from snakernel.evaluation.suspicion import suspicions
from snakernel.evaluation.verdict import (
    CompiledKernel,
    Device,
    Evaluation,
    Latency,
    Reference,
    ReferenceWorkload,
    Settings,
    Status,
    Summary,
    WorkloadResult,
    conclude,
)

NOT_COMPILED = re.compile(
    r"^(triton\.\S+\.)?(CompilationError|CompileTimeAssertionFailure|UnsupportedLanguageConstruct|OutOfResources|PTXASError"
    r"|InterpreterError: (AttributeError|NameError|UnsupportedLanguageConstruct))\b",
    re.MULTILINE,
)
"""What Triton raises where a kernel cannot be compiled for the device, or, in its interpreter, names what is not there.
flashinfer-bench calls that RUNTIME_ERROR, since Triton compiles at the first call; the status stays its, but
``compiled`` tells the truth."""


TRAILING_MS, TRAILING_SHARE = 0.1, 0.1
"""Waiting for an idle device takes the host some microseconds, at times tens of them, hence the first."""
START_S = 60.0
"""Seconds that CUDA may take to start in the candidate's process."""
IMPORT_S = 0.05
"""Importing a kernel of which nothing is built takes less: it is waited for, since what is made ahead may take more."""
STANDBY_S = 0.5
"""Seconds in which a standby makes expected outputs; others wait for the device meanwhile."""
PACE_MS, PACE_FACTOR, PACE_SLACK_MS, PACE_TRIES = 1.0, 2.0, 0.05, 3


@dataclass
class Clock:
    """Where the seconds of an evaluation go."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def part(self, name: str) -> Any:
        """Add the time of the block to a part."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun


class RemoteRunnable:
    """The candidate as the judge calls it: in its own process, and value-returning whatever the kernel's own style is.

    Calls on draws are begun ahead, a few at once, so that the candidate draws and runs while this process reads what it
    expects, and compares.
    """

    def __init__(self, candidate: Candidate, allowance: Allowance):
        self.candidate, self.allowance, self.kind = candidate, allowance, candidate.kind
        self.written: list[str] = []
        """The inputs that the last call wrote to."""
        self.failure: CandidateError | CandidateDied | None = None
        """What :meth:`__call__` raised: flashinfer-bench's evaluators keep it to themselves."""
        self._draws: list[tuple[int, int]] | None = None
        """What is still to be begun: a workload's index and a seed each."""
        self._begun = self._ended = 0
        """Calls on draws, and those of them that were waited for."""

    def run_ahead(self, draws: list[tuple[int, int]]) -> None:
        """Begin calls on draws, each a workload's index and a seed; the second time nothing is done."""
        if self._draws is None:
            self._draws = list(draws)
            self._begin()

    def next_draw(self) -> Found:
        """What the first call on a draw left that was not asked for yet.

        Raises:
            CandidateError, CandidateDied: as :meth:`Candidate.finish`.
        """
        slot = self._ended % DRAW_SLOTS
        self._ended += 1
        found = self._found(self.candidate.finish(self.allowance), slot)
        self._begin()
        return found

    def drain(self) -> None:
        """Wait for what was begun and is not needed; nothing ahead is begun any more."""
        self._draws = []
        while self._ended < self._begun:
            self._ended += 1
            with contextlib.suppress(CandidateError, CandidateDied):
                self.candidate.finish(self.allowance)

    def __call__(self, *inputs: Any) -> Any:
        """The outputs for inputs that an evaluator made."""
        try:
            answer = self.candidate.request("call", pack_inputs(list(inputs)), allowance=self.allowance)
            found = self._found(answer, 0)
        except (CandidateError, CandidateDied) as error:
            self.failure = error
            raise
        self.written = found.written
        return found.outputs

    def _begin(self) -> None:
        while self._draws and self._begun - self._ended < DRAW_SLOTS:
            self.candidate.begin("run", *self._draws.pop(0), self._begun % DRAW_SLOTS, allowance=self.allowance)
            self._begun += 1

    def _found(self, answer: dict[str, Any], slot: int) -> Found:
        """What an answer tells that a checked call left."""
        try:
            written = [writable(str(name)) for name in answer["written"]]
        except (LookupError, TypeError):
            raise self.candidate.unreadable() from None
        return Found(self.outputs(answer, slot), written)

    def outputs(self, answer: dict[str, Any], slot: int) -> Any:
        """What a call returned, which lies in a slot of the buffer.

        Raises:
            CandidateError: it is no plain tensor, or is on another device.
            CandidateDied: the answer is none.
        """
        try:
            kinds = [str(one.get("type", "Tensor")) for one in answer["outputs"]]
        except (LookupError, TypeError, AttributeError):
            raise self.candidate.unreadable() from None
        for kind in kinds:
            if kind not in ("Tensor", "Parameter"):
                raise CandidateError(f"run returned a {writable(kind)}, not a plain torch.Tensor")
        for one in answer["outputs"]:
            # On the CPU, a stand-in says that tensors are on a device.
            if self.kind == "cuda" and one.get("device", self.kind) != self.kind:
                raise CandidateError(f"an output is on {writable(str(one['device']))}, not on {self.kind}")
        return self.candidate.outputs(answer, slot)


def judge(
    task_id: str,
    definition: Definition,
    workloads: list[Workload],
    next_kernel: Callable[[], Solution],
    reference: Reference,
    reference_folder: Path,
    settings: Settings,
    dataset: Path,
    *,
    import_s: float = 0.0,
    standby: bool = False,
    afterwards: contextlib.ExitStack | None = None,
) -> Evaluation:
    """Judge a kernel on every workload.

    Args:
        task_id: the task.
        definition: what the kernel must compute.
        workloads: what it is judged on, in the reference's order.
        next_kernel: gives the kernel, when all is ready that does not depend on it; it may wait for one.
        reference: the reference's latencies.
        reference_folder: where its expected outputs are kept.
        settings: draws, calls, tolerances and limits.
        dataset: where the workloads' blobs are.
        import_s: seconds that this process took to import torch and flashinfer_bench, for the record.
        standby: what is done before there is a kernel is done while nobody waits: more of it, and not in the record.
        afterwards: gets what need not be waited for: the end of the kernel's process, which takes CUDA a while, and of
            what that left behind. Otherwise it is done.

    Returns:
        The verdict. Whatever the kernel does is a verdict; an exception is a fault of ours or of the machine.
    """
    clock = Clock({"import": import_s})
    started, begun = datetime.now(UTC), time.perf_counter()
    kind = "cpu" if settings.eval_backend == "cpu" else "cuda"
    with contextlib.ExitStack() as now:
        later = now if afterwards is None else afterwards
        scratch = Path(tempfile.mkdtemp(prefix="snakernel-"))
        later.callback(shutil.rmtree, scratch, ignore_errors=True)
        with clock.part("start"):
            hidden = [reference_folder, dataset / "solutions"]
            sandbox = Sandbox.plan(scratch, blob_folders(workloads, dataset), hidden=hidden)
            fork = partial(
                Candidate,
                definition,
                workloads,
                kind=kind,
                dataset=dataset,
                sandbox=sandbox,
                memory_limit_gb=settings.memory_limit_gb,
            )
            candidate = fork()
            later.callback(candidate.close)
            ahead = CompileAhead(fork, processes() if standby and kind == "cuda" else 0)
            candidate.helpers = ahead.pids
        try:
            correctness = Correctness(definition, settings, kind)
            expectations = Expectations(
                definition, workloads, reference.workloads, reference_folder, settings, kind, dataset, correctness
            )
            with clock.part("start"):
                ahead.start()
                device = _start(candidate, reference, definition, kind)
                if standby:
                    devices.conditions(device.uuid, set())  # NVML's first answers take milliseconds
                    expectations.make_ahead(lambda: False, STANDBY_S)
                    torch.cuda.empty_cache()  # others may need the memory meanwhile
                ahead.finish_start(START_S)
            solution = next_kernel()
            if standby:
                clock = Clock({"import": import_s, "start": 0.0})
                started, begun = datetime.now(UTC), time.perf_counter()
            kernel = source_of(solution)
            build = Allowance(settings.eval_timeout_s)
            with contextlib.suppress(CandidateDied):  # finish says so
                candidate.begin("build", solution, allowance=build)
            ahead.begin(solution, secrets.randbits(31))
            scan = cache(partial(suspicions, kernel))
            judgment = _Judgment(candidate, correctness, expectations, workloads, reference, settings, clock, ahead)
            broken = judgment.of_build(build)
            results = [] if broken else judgment.of_workloads(scan)
            kernels = _kernels(candidate) if kind == "cuda" and results else []
            own = {os.getpid(), candidate.pid, *ahead.pids}
            state = devices.conditions(device.uuid, own) if kind == "cuda" else None
        finally:
            candidate.end()
            ahead.end()
        log = candidate.printed()
    if broken is None:
        summary = conclude(results)
    else:
        status, error = broken
        if kernel.startswith("# No kernel: "):
            error = kernel.removeprefix("# No kernel: ").strip()
        summary = Summary(status=status, error=error)
    compiled = summary.status is not Status.COMPILE_ERROR and not NOT_COMPILED.search(summary.error)
    clock.seconds["total"] = import_s + time.perf_counter() - begun
    return Evaluation(
        task_id=task_id,
        kernel_sha256=kernel_sha256(kernel),
        compiled=compiled,
        **vars(summary),
        workloads=results,
        device=device,
        conditions=state,
        kernels=kernels,
        suspicions=scan(),
        notes=_notes(results),
        versions=devices.versions(),
        timing=timing.METHODS[kind],
        settings=settings,
        isolation=sandbox.describe(),
        seconds={name: round(value, 3) for name, value in clock.seconds.items()},
        log=log,
        started=started.isoformat(timespec="milliseconds"),
    )


def _start(candidate: Candidate, reference: Reference, definition: Definition, kind: str) -> Device:
    """Start CUDA in both processes at once, this one and the candidate's; returns the device.

    Raises:
        UserError: the reference is not that of the definition on this device.
        RuntimeError: the candidate's process cannot use the device. No kernel is near, so this is no verdict.
    """
    allowance = Allowance(START_S)
    # A process that somebody killed says so when it is given the kernel.
    with contextlib.suppress(CandidateDied):
        candidate.begin("start", allowance=allowance)
    drawing.prepare(kind)
    device = devices.describe(kind)
    _check_reference(reference, definition, device)
    candidate.make_buffer()  # first of all, so that it shares its memory with nothing else
    try:
        with contextlib.suppress(CandidateDied):
            candidate.finish(allowance)
            candidate.share_buffer()
    except CandidateError as error:
        raise RuntimeError(f"the candidate's process cannot use the device: {error}") from None
    return device


@dataclass
class _Judgment:
    """One kernel on its way through the workloads."""

    candidate: Candidate
    correctness: Correctness
    expectations: Expectations
    workloads: list[Workload]
    reference: Reference
    settings: Settings
    clock: Clock
    ahead: CompileAhead

    def __post_init__(self) -> None:
        self.remotes = [RemoteRunnable(self.candidate, Allowance(self.settings.eval_timeout_s)) for _ in self.workloads]
        self._broken = False

    def of_build(self, allowance: Allowance) -> tuple[Status, str] | None:
        """Wait for the kernel's import, which has begun; the status and error of the whole kernel where that failed."""
        try:
            with self.clock.part("build"):
                if not self.candidate.has_answered(IMPORT_S):
                    self.expectations.make_ahead(self.candidate.has_answered)
                self.candidate.finish(allowance)
        except CandidateTimeout:
            return Status.TIMEOUT, f"importing the kernel took more than {self.settings.eval_timeout_s:g} s"
        except (CandidateError, CandidateDied) as error:
            return Status.COMPILE_ERROR, str(error)
        return None

    def of_workloads(self, meanwhile: Callable[[], object]) -> list[WorkloadResult]:
        """The results; ``meanwhile`` is called while the kernel's process compiles, and may be called again.

        Each workload is timed as soon as it was checked; but nothing is timed while further processes compile, for as
        long as the first check took, and what else can be checked is checked meanwhile.
        """
        results = [
            WorkloadResult(
                uuid=workload.uuid,
                axes=workload.axes,
                status=Status.NOT_RUN,
                reference_ms=record.latency.median_ms,
                baseline_ms=record.baseline.median_ms if record.baseline else None,
                floor_ms=record.floor_ms,
                error="not run: another workload failed",
            )
            for workload, record in zip(self.workloads, self.reference.workloads, strict=True)
        ]
        variants = [variant(workload) for workload in self.workloads]
        # First those of the first one's, which is compiled when it has been checked.
        unchecked = sorted(range(len(results)), key=lambda index: variants[index] != variants[0])
        for index, result in enumerate(results):
            begun = time.perf_counter()
            if index in unchecked:
                unchecked.remove(index)
                self._check(index, result, meanwhile)
            enough = 2 * time.perf_counter() - begun
            while unchecked and not self._broken and self.ahead.is_working(enough - time.perf_counter()):
                at = unchecked.pop(0)
                self._check(at, results[at], meanwhile)
            with self.clock.part("check"):
                self.ahead.finish(enough - time.perf_counter())
            if not self._broken and result.status is Status.PASSED:
                self._time_and_check(index, result)
            if self._broken:
                break
            self.expectations.forget(index)
        for result in results:
            if result.status is Status.PASSED and result.latency is None:
                result.status, result.error = Status.NOT_RUN, "right, but not timed: another workload failed"
        return results

    def _check(self, index: int, result: WorkloadResult, meanwhile: Callable[[], object]) -> None:
        result.status, result.error = Status.PASSED, ""
        with self._telling(result), self.clock.part("check"):
            self._check_draws(index, result, meanwhile)

    def _time_and_check(self, index: int, result: WorkloadResult) -> None:
        with self._telling(result):
            with self.clock.part("time"):
                kept = self._time(index, result)
            with self.clock.part("check"):
                if index + 1 < len(self.workloads) and not self.correctness.needs_inputs:
                    with contextlib.suppress(CandidateDied):  # the next workload says so
                        self._run_draws(index + 1)
                if result.status is Status.PASSED:
                    outputs = self.remotes[index].outputs
                    found = [Found(outputs(answer, slot), []) for slot, (_, answer) in enumerate(kept, DRAW_SLOTS)]
                    expected = [self.expectations.of(index, draw) for draw, _ in kept]
                    self.correctness.check_drawn(result, found, expected, timed=True)
            if result.status is Status.PASSED:
                _check_floor(result, self.reference.workloads[index], self.reference.device.name)

    @contextlib.contextmanager
    def _telling(self, result: WorkloadResult) -> Any:
        """Put into a result what ends the work on its workload."""
        try:
            yield
        except CandidateTimeout:
            result.status = Status.TIMEOUT
            result.error = f"not done after {self.settings.eval_timeout_s:g} s"
        except (CandidateError, CandidateDied) as error:
            result.status, result.error = Status.RUNTIME_ERROR, str(error)
        except torch.OutOfMemoryError as error:
            result.status = Status.RUNTIME_ERROR
            result.error = f"the kernel leaves no device memory to check its outputs: {error}"
        if result.status is not Status.PASSED:
            result.latency = result.speedup = None
        # The process is gone, or its device may be in any state: nothing that it says of the rest would count.
        self._broken |= result.status in (Status.TIMEOUT, Status.RUNTIME_ERROR)

    def _check_draws(self, index: int, result: WorkloadResult, meanwhile: Callable[[], object]) -> None:
        """Let flashinfer-bench's evaluator decide on correctness, a few draws at a time, before anything is timed."""
        remote = self.remotes[index]
        if self.correctness.needs_inputs:
            # The sampling evaluator draws a distribution from one set of inputs: more sets would take minutes each.
            self.correctness.check_called(result, remote, *self.expectations.with_inputs(index))
            if remote.failure is not None:
                raise remote.failure
            refuse_writing(result, remote.written)
            return
        self._run_draws(index)
        try:
            meanwhile()
            draws = range(self.settings.num_trials)
            for some in (draws[first : first + DRAW_SLOTS] for first in draws[::DRAW_SLOTS]):
                found = []
                for _ in some:
                    self.expectations.make_ahead(self.candidate.has_answered)
                    found.append(remote.next_draw())
                self.correctness.check_drawn(result, found, [self.expectations.of(index, draw) for draw in some])
                if result.status is not Status.PASSED:
                    break
        finally:
            remote.drain()

    def _run_draws(self, index: int) -> None:
        """Have the candidate's process begin with the draws of a workload, if it has not."""
        self.remotes[index].run_ahead([(index, self._seed(index, draw)) for draw in range(self.settings.num_trials)])

    def _seed(self, index: int, draw: int) -> int:
        return drawing.draw_seed(self.settings.seed, self.workloads[index], draw)

    def _time(self, index: int, result: WorkloadResult) -> list[tuple[int, dict[str, Any]]]:
        """Time a workload that passed, on values that it has not been checked on.

        Returns:
            Draws that two of the timed calls were given, one that the candidate has not seen and any other, and what
            these calls returned: nobody but the judge knows which they are. None where the evaluator needs the inputs.
        """
        trials, allowance = self.settings.num_trials, self.remotes[index].allowance
        draws = [] if self.correctness.needs_inputs else [trials, secrets.randbelow(trials)]
        calls = random.SystemRandom().sample(range(timing.MIN_CALLS), len(draws))
        checks = sorted(zip(calls, draws, strict=True))
        answer = self.candidate.request(
            "time",
            index,
            timed_seed(self.settings.seed, self.workloads[index]),
            [(call, self._seed(index, draw)) for call, draw in checks],
            self.settings.warmup_runs,
            self.settings.iterations,
            self.settings.timing_budget_s,
            allowance=allowance,
        )
        try:
            calls_ms, host_ms = ([float(value) for value in answer[key]] for key in ("calls_ms", "host_ms"))
            trailing_ms, waits = float(answer["trailing_ms"] or 0), bool(answer.get("waits"))
            kept = [(draw, dict(one)) for (_, draw), one in zip(checks, answer["kept"], strict=True)]
        except (LookupError, TypeError, ValueError, OverflowError):
            raise self.candidate.unreadable() from None
        if (
            not calls_ms
            or not all(0 < value < math.inf for value in calls_ms)
            or not all(0 <= value < math.inf for value in [*host_ms, trailing_ms])
        ):
            raise self.candidate.unreadable()
        result.latency = Latency.of(calls_ms, host_ms, waits=waits)
        if trailing_ms > max(TRAILING_MS, TRAILING_SHARE * result.latency.median_ms):
            result.status = Status.REJECTED
            result.error = (
                f"the device works on for {trailing_ms * 1e3:.0f} us after the call: part of the work is on a stream "
                "that the caller's stream does not wait for"
            )
            return []
        if result.latency.host_ms is not None:
            _check_pace(self.candidate, result, allowance)
        if result.reference_ms is not None:
            result.speedup = result.reference_ms / result.latency.median_ms
        return kept


def _check_pace(candidate: Candidate, result: WorkloadResult, allowance: Allowance) -> None:
    """Hold what the candidate's process says of its latency against this process's own clock.

    Calls one after another take at least as long, each, as the longer of the device's and the host's time; the device's
    may be less here, with warm caches, never more. What is told of the host counts too: who lies about both shows a
    call that the host takes long to launch.
    """
    assert result.latency is not None and result.latency.host_ms is not None
    told = max(result.latency.median_ms, result.latency.host_ms)
    few, many = 1, 1 + max(2, min(200, int(PACE_MS / told)))
    limit, pace = PACE_FACTOR * told + PACE_SLACK_MS, math.inf
    for _ in range(PACE_TRIES):
        seconds = []
        for calls in (few, many):
            begun = time.perf_counter()
            candidate.request("pace", calls, allowance=allowance)
            seconds.append(time.perf_counter() - begun)
        pace = min(pace, (seconds[1] - seconds[0]) * 1e3 / (many - few))
        if pace <= limit:
            break
    else:
        result.status = Status.REJECTED
        result.error = (
            f"its process tells of {told:.4g} ms a call, but {many - few} calls took {pace:.4g} ms each by the judge's "
            "clock: the timer was tampered with, or the calls differ"
        )


def _check_floor(result: WorkloadResult, record: ReferenceWorkload, device: str) -> None:
    """Refuse a latency that the device cannot reach."""
    assert result.latency is not None
    if record.floor_ms is None:
        return
    if result.latency.median_ms < roofline.MARGIN * record.floor_ms - roofline.RESOLUTION_MS:
        result.status = Status.REJECTED
        result.error = (
            f"a latency of {result.latency.median_ms * 1e3:.4g} us is under what {device} can do: {record.floor} takes "
            f"{record.floor_ms * 1e3:.4g} us at least, so the work was not done in the timed calls"
        )


def _kernels(candidate: Candidate) -> list[CompiledKernel]:
    """What the kernel's process says of its compiled Triton kernels; nothing where it says nothing that can be read."""
    try:
        answer = candidate.request("compiled", allowance=Allowance(5))
        return [CompiledKernel.model_validate(one) for one in answer["kernels"][:MAX_KERNELS]]
    except (CandidateError, CandidateDied, LookupError, TypeError, ValueError):
        return []


def _notes(results: list[WorkloadResult]) -> list[str]:
    timed = [one.latency for one in results if one.latency is not None and one.latency.host_ms is not None]
    waiting = sum(one.waits for one in timed)
    slow = sum(one.host_ms > one.median_ms and not one.waits for one in timed)
    notes = []
    if waiting:
        notes.append(
            f"the host waits for the device in a call on {waiting} of {len(timed)} workloads (a synchronisation, a "
            "copy to the host, a value read from a tensor): its way back is part of the latency, and no CUDA graph "
            "captures it"
        )
    if slow:
        notes.append(
            f"the host takes longer to launch a call than the device to run it on {slow} of {len(timed)} workloads: a "
            "caller that captures no CUDA graph waits for the host"
        )
    return notes


def _check_reference(reference: Reference, definition: Definition, device: Any) -> None:
    if reference.definition_sha256 != definition_hash(definition):
        raise UserError(
            f"reference/reference.json of {reference.task_id} was made from another definition; "
            "delete the task's reference folder and run again"
        )
    if (reference.device.kind, reference.device.name) != (device.kind, device.name):
        raise UserError(
            f"reference/reference.json of {reference.task_id} was measured on {reference.device.name}, this is "
            f"{device.name}: speedups between devices say nothing; delete the task's reference folder to measure again"
        )
