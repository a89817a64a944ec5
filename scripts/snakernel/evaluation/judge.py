"""The judge: it holds the expected outputs, compares, keeps the times and decides. It never imports a candidate."""

from __future__ import annotations

import contextlib
import io
import math
import re
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flashinfer_bench.bench.evaluators import resolve_evaluator
from flashinfer_bench.compile.runnable import RunnableMetadata
from flashinfer_bench.data import Definition, Workload

from snakernel.errors import UserError
from snakernel.evaluation import devices, timing
from snakernel.evaluation import inputs as drawing
from snakernel.evaluation.candidate import (
    Allowance,
    Candidate,
    CandidateDied,
    CandidateError,
    CandidateTimeout,
    pack_inputs,
    writable,
)
from snakernel.evaluation.reference import definition_hash, read_expected
from snakernel.evaluation.sandbox import Sandbox
from snakernel.evaluation.solution import kernel_sha256, make_solution
from snakernel.evaluation.verdict import (
    Evaluation,
    Latency,
    Reference,
    ReferenceWorkload,
    Settings,
    Status,
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
    """The candidate as flashinfer-bench's evaluators see it: a call runs in the candidate's process.

    It is value-returning here whatever the kernel's own style is.
    """

    def __init__(self, candidate: Candidate, definition: Definition, allowance: Allowance):
        self.candidate, self.allowance = candidate, allowance
        self.metadata = RunnableMetadata(
            build_type="remote",
            definition_name=definition.name,
            solution_name="candidate",
            destination_passing_style=False,
            definition=definition,
        )
        self.last: Any = None
        """The outputs of the last call."""
        self.written: list[str] = []
        """The inputs that the last call wrote to."""
        self.failure: CandidateError | CandidateDied | None = None

    def __call__(self, *inputs: Any) -> Any:
        """Run on a draw (a single :class:`RemoteDraw`) or on inputs that the evaluator made."""
        try:
            if len(inputs) == 1 and isinstance(inputs[0], RemoteDraw):
                draw = inputs[0]
                command = "rerun" if draw.after_timing else "run"
                answer = self.candidate.request(command, draw.workload, draw.seed, allowance=self.allowance)
            else:
                answer = self.candidate.request("call", pack_inputs(list(inputs)), allowance=self.allowance)
            try:
                kinds = [str(one.get("type", "Tensor")) for one in answer["outputs"]]
                self.written = [writable(str(name)) for name in answer["written"]]
            except (LookupError, TypeError, AttributeError):
                raise self.candidate.unreadable() from None
            for kind in kinds:
                if kind not in ("Tensor", "Parameter"):
                    raise CandidateError(f"run returned a {writable(kind)}, not a plain torch.Tensor")
            self.last = self.candidate.outputs(answer)
        except (CandidateError, CandidateDied) as error:
            self.failure = error
            raise
        return self.last


@dataclass(frozen=True)
class RemoteDraw:
    """In place of inputs: the candidate draws them itself."""

    workload: int
    seed: int
    after_timing: bool = False
    """In the memory that held the inputs of timed calls."""


def judge(
    task_id: str,
    definition: Definition,
    workloads: list[Workload],
    kernel: str,
    reference: Reference,
    reference_folder: Path,
    settings: Settings,
    dataset: Path,
    *,
    import_s: float = 0.0,
) -> Evaluation:
    """Judge a kernel on every workload.

    Args:
        task_id: the task.
        definition: what the kernel must compute.
        workloads: what it is judged on, in the reference's order.
        kernel: its source.
        reference: the reference's latencies.
        reference_folder: where its expected outputs are kept.
        settings: draws, calls, tolerances and limits.
        dataset: where the workloads' blobs are.
        import_s: seconds that this process took to import torch and flashinfer_bench, for the record.

    Returns:
        The verdict. Whatever the kernel does is a verdict; an exception is a fault of ours or of the machine.
    """
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    clock = Clock({"import": import_s})
    begun = time.perf_counter()
    kind = "cpu" if settings.eval_backend == "cpu" else "cuda"
    scratch = Path(tempfile.mkdtemp(prefix="snakernel-"))
    try:
        solution = make_solution(definition, kernel)
        with clock.part("start"):
            sandbox = Sandbox.plan(scratch, dataset, hidden=[reference_folder])
            candidate = Candidate(definition, solution, workloads, kind=kind, dataset=dataset, sandbox=sandbox)
        try:
            with clock.part("start"):
                drawing.prepare(kind)
                device = devices.describe(kind)
                _check_reference(reference, definition, device)
            results, broken = _judge_workloads(
                candidate, definition, workloads, reference, reference_folder, settings, kind, dataset, clock
            )
        finally:
            log = candidate.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if broken is None:
        status, correct, speedup, geomean, latency, error, stats = conclude(results)
    else:
        status, error = broken
        correct, speedup, geomean, latency, stats = False, None, None, None, {}
        if kernel.startswith("# No kernel: "):
            error = kernel.removeprefix("# No kernel: ").strip()
    compiled = status is not Status.COMPILE_ERROR and not NOT_COMPILED.search(error)
    clock.seconds["total"] = import_s + time.perf_counter() - begun
    return Evaluation(
        task_id=task_id,
        kernel_sha256=kernel_sha256(kernel),
        status=status,
        compiled=compiled,
        correct=correct,
        speedup=speedup,
        speedup_geomean=geomean,
        latency_ms=latency,
        error=error,
        stats=stats,
        workloads=results,
        device=device,
        versions=devices.versions(),
        timing=timing.METHODS[kind],
        settings=settings,
        isolation=sandbox.describe(),
        seconds={name: round(value, 3) for name, value in clock.seconds.items()},
        log=log,
        started=started,
    )


def _judge_workloads(
    candidate: Candidate,
    definition: Definition,
    workloads: list[Workload],
    reference: Reference,
    reference_folder: Path,
    settings: Settings,
    kind: str,
    dataset: Path,
    clock: Clock,
) -> tuple[list[WorkloadResult], tuple[Status, str] | None]:
    """The results, and, where there was nothing to run, the status and error of the whole kernel."""
    try:
        with clock.part("build"):
            candidate.request("build", allowance=Allowance(settings.eval_timeout_s))
    except CandidateTimeout:
        return [], (Status.TIMEOUT, f"importing the kernel took more than {settings.eval_timeout_s:g} s")
    except (CandidateError, CandidateDied) as error:
        return [], (Status.COMPILE_ERROR, str(error))
    try:
        with clock.part("start"):
            candidate.share_buffer()
    except (CandidateError, CandidateDied) as error:
        # A kernel that breaks the device while it is imported.
        return [], (Status.RUNTIME_ERROR, str(error))
    results = [
        WorkloadResult(
            uuid=workload.uuid,
            axes=workload.axes,
            status=Status.NOT_RUN,
            reference_ms=record.latency.median_ms,
            error="not run: an earlier workload failed",
        )
        for workload, record in zip(workloads, reference.workloads, strict=True)
    ]
    for index, (workload, record, result) in enumerate(zip(workloads, reference.workloads, results, strict=True)):
        result.error = ""
        allowance = Allowance(settings.eval_timeout_s)
        remote = RemoteRunnable(candidate, definition, allowance)
        arguments = (remote, result, definition, workload, index, record, reference_folder, settings, kind, dataset)
        check = partial(_check, *arguments)
        try:
            with clock.part("check"):
                check()
            if result.status is Status.PASSED:
                with clock.part("time"):
                    _time(candidate, result, workload, index, settings, allowance)
                with clock.part("check"):
                    check(after_timing=True)
        except CandidateTimeout:
            result.status = Status.TIMEOUT
            result.error = f"not done after {settings.eval_timeout_s:g} s"
        except (CandidateError, CandidateDied) as error:
            result.status, result.error = Status.RUNTIME_ERROR, str(error)
        except torch.OutOfMemoryError as error:
            result.status = Status.RUNTIME_ERROR
            result.error = f"the kernel leaves no device memory to check its outputs: {error}"
        if result.status is not Status.PASSED:
            result.latency = result.speedup = None
        if isinstance(remote.failure, CandidateDied) or result.status in (Status.TIMEOUT, Status.RUNTIME_ERROR):
            # The process is gone, or its device may be in any state: nothing that it says of the rest would count.
            break
    return results, None


def _check(
    remote: RemoteRunnable,
    result: WorkloadResult,
    definition: Definition,
    workload: Workload,
    index: int,
    record: ReferenceWorkload,
    reference_folder: Path,
    settings: Settings,
    kind: str,
    dataset: Path,
    *,
    after_timing: bool = False,
) -> None:
    """Let flashinfer-bench's evaluator decide on correctness, draw by draw; after the timing on one more draw."""
    evaluator = resolve_evaluator(definition)
    config = drawing.benchmark_config(settings)
    # After the timing, the errors of the draws before it count on.
    absolute, relative = result.max_absolute_error or 0.0, result.max_relative_error or 0.0
    if after_timing and _needs_inputs(evaluator):
        return
    numbers = [settings.num_trials] if after_timing else range(settings.num_trials)
    for number in numbers:
        seed = drawing.draw_seed(settings.seed, workload, number)
        arguments: list[Any] = [RemoteDraw(index, seed, after_timing)]
        expected = read_expected(reference_folder, record, number, len(definition.outputs), kind)
        if expected is None:
            draw = drawing.draw_expected(definition, workload, seed, kind, dataset)
            expected = draw.expected
            if _needs_inputs(evaluator):
                arguments = draw.inputs
        quiet = io.StringIO()
        with contextlib.redirect_stderr(quiet):
            correctness, refusal = evaluator.check_correctness(
                definition=definition,
                sol_runnable=remote,
                inputs=[arguments],
                ref_outputs=[expected],
                cfg=config,
                log_path="",
                device=drawing.device_name(kind),
            )
        if remote.failure is not None:
            raise remote.failure
        if correctness is not None:
            absolute = max(absolute, correctness.max_absolute_error)
            relative = max(relative, correctness.max_relative_error)
            result.max_absolute_error, result.max_relative_error = absolute, relative
        if refusal is not None:
            result.status = Status(refusal.status.value)
            # The evaluator prints a message, or a traceback through our own code: its last line is the message.
            told = writable(quiet.getvalue().strip().rpartition("\n")[2][-2000:])
            if result.status is Status.RUNTIME_ERROR or _needs_inputs(evaluator):
                result.error = told
            else:
                result.error = _mismatch(definition, remote.last, expected, config) or told
            if after_timing:
                result.status = Status.REJECTED
                result.error = (
                    "right before it was timed, wrong on new values in the same memory after it: "
                    f"results are kept from one call to another ({result.error})"
                )
            return
        if remote.written:
            result.status = Status.REJECTED
            result.error = f"it writes to its input {', '.join(map(repr, remote.written))}; work on a copy"
            return
        if _needs_inputs(evaluator):
            # The sampling evaluator draws a distribution from one set of inputs: more sets would take minutes each.
            break
    result.status = Status.PASSED


def _time(
    candidate: Candidate,
    result: WorkloadResult,
    workload: Workload,
    index: int,
    settings: Settings,
    allowance: Allowance,
) -> None:
    """Time a workload that passed, on draws that it has not been checked on."""
    seeds = [drawing.draw_seed(settings.seed, workload, 1000 + number) for number in range(settings.num_trials)]
    answer = candidate.request(
        "time", index, seeds, settings.warmup_runs, settings.iterations, settings.timing_budget_s, allowance=allowance
    )
    try:
        calls, host = ([float(value) for value in answer[key]] for key in ("calls_ms", "host_ms"))
    except (LookupError, TypeError, ValueError, OverflowError):
        raise candidate.unreadable() from None
    if (
        not calls
        or not all(0 < value < math.inf for value in calls)
        or not all(0 <= value < math.inf for value in host)
    ):
        raise candidate.unreadable()
    result.latency = Latency.of(calls, host)
    if result.reference_ms is not None:
        result.speedup = result.reference_ms / result.latency.median_ms


def _needs_inputs(evaluator: Any) -> bool:
    from flashinfer_bench.bench.evaluators.sampling import SamplingEvaluator

    return issubclass(evaluator, SamplingEvaluator)


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


def _mismatch(definition: Definition, outputs: Any, expected: list[torch.Tensor], config: Any) -> str:
    """Where outputs differ from what was expected, in words: shape, dtype, or the first wrong elements."""
    found = outputs if isinstance(outputs, list) else [outputs]
    if len(found) != len(definition.outputs):
        return f"run returned {len(found)} outputs, the definition has {len(definition.outputs)}"
    for (name, _), got, want in zip(definition.outputs.items(), found, expected, strict=False):
        if not isinstance(got, torch.Tensor):
            got = torch.tensor(got)
        if tuple(got.shape) != tuple(want.shape):
            return f"output {name!r} has shape {list(got.shape)}, expected {list(want.shape)}"
        if got.dtype != want.dtype:
            return f"output {name!r} is {got.dtype}, expected {want.dtype}"
        x, y = got.to(torch.float32), want.to(torch.float32)
        off = (x - y).abs()
        wrong = ~torch.isfinite(x) | ((off > config.atol) & (off / (y.abs() + 1e-8) > config.rtol))
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
