"""The files of the evaluation: reference.json and evaluation.json."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from snakernel.config import Config
from snakernel.evaluation.timing import median_interval


class Model(BaseModel):
    """Fields are described below each, and a field that is not known is an error."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings", defer_build=True)


class Status(StrEnum):
    """flashinfer-bench's EvaluationStatus, and three of our own."""

    PASSED = "PASSED"
    INCORRECT_SHAPE = "INCORRECT_SHAPE"
    INCORRECT_NUMERICAL = "INCORRECT_NUMERICAL"
    INCORRECT_DTYPE = "INCORRECT_DTYPE"
    RUNTIME_ERROR = "RUNTIME_ERROR"
    COMPILE_ERROR = "COMPILE_ERROR"
    TIMEOUT = "TIMEOUT"
    REJECTED = "REJECTED"
    """The evaluator's guards refused the kernel; the error says why."""
    NOT_RUN = "NOT_RUN"
    """Of a workload only: another one ended the candidate's process before this one was judged, or timed."""
    SKIPPED = "SKIPPED"
    """The step was not asked, so there is no kernel; the error says why."""


class Latency(Model):
    """The latency of one workload."""

    median_ms: float
    """Median over the timed calls, in milliseconds."""
    low_ms: float
    """Lower end of the median's 95 % confidence interval, from order statistics."""
    high_ms: float
    """Upper end of it."""
    calls: int
    """Timed calls."""
    host_ms: float | None = None
    """Median time that the host needs to launch a call, in milliseconds; None on the CPU, where it is the latency."""
    waits: bool = False
    """The host waits for the device in a call: its way back is part of the latency."""

    @classmethod
    def of(cls, calls_ms: list[float], host_ms: list[float] | None = None, *, waits: bool = False) -> Latency:
        """Summarise timed calls, in milliseconds.

        The interval is :func:`snakernel.evaluation.timing.median_interval`.
        """
        median, low, high = median_interval(calls_ms)
        return cls(
            median_ms=median,
            low_ms=low,
            high_ms=high,
            calls=len(calls_ms),
            host_ms=statistics.median(host_ms) if host_ms else None,
            waits=waits,
        )


class Device(Model):
    """What the figures were measured on."""

    kind: Literal["cuda", "cpu"]
    """cuda, or cpu: Triton's interpreter, whose times say nothing of a GPU."""
    name: str
    """The device as its driver names it."""
    uuid: str | None = None
    """The device's UUID."""
    driver: str | None = None
    """The driver's version."""
    capability: str | None = None
    """CUDA compute capability, as in 9.0."""
    memory_gb: float | None = None
    """Its memory, in 10^9 bytes."""


class Conditions(Model):
    """The state of a CUDA device around a measurement, by NVML; None where it cannot be told."""

    sm_clock_mhz: int | None = None
    """Clock of the multiprocessors."""
    memory_clock_mhz: int | None = None
    """Clock of the memory."""
    temperature_c: int | None = None
    """Temperature."""
    power_w: float | None = None
    """Power drawn."""
    throttled: list[str] = Field(default_factory=list)
    """Why clocks were held back."""
    other_processes: list[int] = Field(default_factory=list)
    """Processes beside the evaluation's own that had memory on the device."""


class CompiledKernel(Model):
    """What a compiled Triton kernel takes of the device; told by the kernel's own process, so no evidence."""

    name: str
    """The function."""
    registers: int
    """Registers a thread."""
    spills: int
    """Registers that had no room and live in local memory, in 4-byte words."""
    shared_bytes: int
    """Shared memory a block."""
    warps: int
    """Warps a block."""
    stages: int
    """Stages of its pipelined loops."""


class ProfiledKernel(Model):
    """What Nsight Compute says of one launch of a kernel."""

    name: str
    """The function."""
    time_us: float
    """Its duration under the profiler, in microseconds; caches are cold, and clocks as they are."""
    memory: float | None = None
    """Throughput of the busiest part of the memory system, in percent of its peak."""
    dram: float | None = None
    """Throughput of the device's memory, likewise."""
    compute: float | None = None
    """Throughput of the busiest part of the multiprocessors, likewise."""
    tensor: float | None = None
    """Cycles in which the tensor cores were busy, likewise."""
    occupancy: float | None = None
    """Warps that were active on a busy multiprocessor, in percent of what it holds."""
    l2_hits: float | None = None
    """Accesses to the L2 cache that found there what they looked for, in percent."""
    stalls: dict[str, float] = Field(default_factory=dict)
    """What warps waited for longest, in percent of their cycles, the longest first."""


class Profile(Model):
    """What Nsight Compute says of one call of a kernel; told by the kernel's own process too, so no evidence."""

    axes: dict[str, int] = Field(default_factory=dict)
    """The workload: the one that takes longest."""
    kernels: list[ProfiledKernel] = Field(default_factory=list)
    """Its launches, the longest first."""
    launches: int = 0
    """How many there were in all."""
    error: str = ""
    """Why there is nothing."""


def expected_path(folder: Path, uuid: str) -> Path:
    """Where the expected outputs of a workload are kept."""
    return folder / "expected" / f"{uuid}.safetensors"


class Settings(Model):
    """The evaluator's own settings: with the same ones, the same kernel gets the same verdict."""

    eval_backend: str
    num_trials: int
    warmup_runs: int
    iterations: int
    timing_budget_s: float
    eval_timeout_s: float
    memory_limit_gb: float | None = None
    atol: float
    rtol: float
    required_matched_ratio: float | None
    max_workloads: int | None
    seed: int
    reference_max_mb: int

    @classmethod
    def of(cls, config: Config) -> Settings:
        """The part of a configuration that a verdict depends on."""
        return cls(**{name: getattr(config, name) for name in cls.model_fields})


class ReferenceWorkload(Model):
    """The reference on one workload."""

    uuid: str
    """The workload."""
    axes: dict[str, int]
    """Its axes."""
    latency: Latency
    """The reference's latency."""
    baseline: Latency | None = None
    """The latency of the dataset's baseline solution, where there is one."""
    floor_ms: float | None = None
    """The least time that the device needs, in milliseconds: see evaluation/roofline.py; None on the CPU."""
    floor: str | None = None
    """What that is the time of: bytes and operations, and the device's rates."""
    output_bytes: int
    """Bytes of all outputs of one draw."""
    expected: list[str]
    """Checksum of the expected outputs of each draw."""
    stored: bool
    """Whether the expected outputs are kept in expected/{uuid}.safetensors; else they are computed again."""


class Reference(Model):
    """reference/reference.json: what the evaluator keeps of the reference, made once and read by every step."""

    format_version: int = 1
    """Version of this file's format."""
    task_id: str
    """The task."""
    definition_sha256: str
    """Hash of the definition."""
    device: Device
    """What it was measured on."""
    versions: dict[str, str]
    """Versions of what decides: python, torch, triton, flashinfer-bench."""
    timing: str
    """How latencies were measured."""
    settings: Settings
    """The evaluator's settings."""
    workloads: list[ReferenceWorkload]
    """One record a workload."""
    baseline: str | None = None
    """Name of the dataset's baseline solution whose latency is beside the reference's; None where it has none."""
    notes: list[str] = Field(default_factory=list)
    """What a person should know: outputs that are not kept, and why."""


class WorkloadResult(Model):
    """The verdict on one workload."""

    uuid: str
    """The workload."""
    axes: dict[str, int]
    """Its axes."""
    status: Status
    """The verdict."""
    latency: Latency | None = None
    """The kernel's latency, where it passed."""
    reference_ms: float | None = None
    """The reference's latency, in milliseconds."""
    speedup: float | None = None
    """reference_ms / latency, where it passed."""
    baseline_ms: float | None = None
    """The latency of the dataset's baseline solution, in milliseconds."""
    floor_ms: float | None = None
    """The least time that the device needs, in milliseconds."""
    max_absolute_error: float | None = None
    """Largest absolute error over all draws and outputs."""
    max_relative_error: float | None = None
    """Largest relative error."""
    error: str = ""
    """What went wrong, for a person and for the next prompt."""


class Rented(Model):
    """What a verdict took of a GPU that is paid for by the second."""

    service: str
    """Who rents it out."""
    gpu: str
    """The GPU type that was asked for; device tells what it was."""
    seconds: float
    """Seconds that the verdict took in the container; its start, and its wait for the next kernel, come on top."""
    usd: float | None
    """US dollars for these, estimated: seconds times the price; None where the price is not known."""
    price: str | None
    """Where the price is from."""


class Evaluation(Model):
    """evaluation.json: the verdict on a kernel. compiled, correct, speedup, latency_ms, task_id, error and stats are
    the baseline's fields under the baseline's names."""

    format_version: int = 1
    """Version of this file's format."""
    task_id: str
    """The task."""
    kernel_sha256: str
    """Hash of the kernel file that was judged."""
    status: Status
    """PASSED where all workloads passed, else the first other status."""
    compiled: bool
    """It could be imported, and the compiler took its kernels."""
    correct: bool
    """Every workload passed."""
    speedup: float | None
    """Arithmetic mean over workloads of reference latency / latency (the contest's rule); None unless correct."""
    speedup_geomean: float | None
    """Geometric mean of the same."""
    speedup_over_baseline: float | None = None
    """Arithmetic mean over workloads of baseline latency / latency (the contest's score); None unless correct, or
    where the dataset has no baseline solution."""
    latency_ms: float | None
    """Arithmetic mean over workloads of the latency, in milliseconds; None unless correct."""
    error: str
    """What went wrong first; empty where it passed."""
    stats: dict[str, int]
    """How many workloads got each status."""
    workloads: list[WorkloadResult]
    """One record a workload; empty where the kernel could not be built."""
    device: Device
    """What it was measured on."""
    rented: Rented | None = None
    """What was rented for it; None on a device of one's own."""
    conditions: Conditions | None = None
    """The state of the device when the kernel had been timed; None on the CPU."""
    kernels: list[CompiledKernel] = Field(default_factory=list)
    """What its Triton kernels take of the device."""
    profile: Profile | None = None
    """What Nsight Compute says of it, where the configuration's ``feedback`` asks for that and it is correct."""
    suspicions: list[str] = Field(default_factory=list)
    """What a scan of its source finds odd; none of it decides."""
    notes: list[str] = Field(default_factory=list)
    """What a person should know of the figures: calls that the host takes longer to launch than the device to run."""
    versions: dict[str, str]
    """Versions of what decides."""
    timing: str
    """How latencies were measured."""
    settings: Settings
    """The evaluator's settings."""
    isolation: list[str] = Field(default_factory=list)
    """What kept the kernel from what is not its own."""
    seconds: dict[str, float]
    """Where the evaluation's own time went: import, start, build, check, time, total."""
    log: str = ""
    """What the kernel printed: the head and the tail of it."""
    started: str
    """When the evaluation began, ISO 8601, UTC."""


class Contender(Model):
    """A kernel that may be a task's best."""

    step: int
    """The step that made it."""
    speedup: float
    """Its speedup by the verdict of its step."""
    status: Status
    """The verdict on fresh draws."""
    error: str = ""
    """What was wrong there."""


class Comparison(Model):
    """Two kernels timed in turns, on all workloads."""

    first: int
    """A step."""
    second: int
    """Another."""
    ratio: float
    """Latency of the second over that of the first: geometric mean over workloads and rounds. Over 1, the first is
    faster."""
    low: float
    """Lower end of the ratio's 95 % confidence interval over the rounds (Student's t, of the logarithms)."""
    high: float
    """Upper end of it."""
    rounds: int
    """Rounds; in each, every workload is timed for both kernels, in an order that is drawn and in new processes."""


class Confirmation(Model):
    """best/confirmation.json: which kernel a task ends with, and what that rests on."""

    format_version: int = 1
    """Version of this file's format."""
    task_id: str
    """The task."""
    step: int | None
    """The step whose kernel it is; None where no kernel is correct, or none was right on the fresh draws."""
    draws: int
    """Fresh draws of the inputs of each workload."""
    contenders: list[Contender]
    """The kernels that were looked at, the best by its verdict first."""
    comparisons: list[Comparison]
    """The best so far against the next."""


@dataclass
class Summary:
    """What a kernel's workloads come to: fields of :class:`Evaluation`."""

    status: Status
    correct: bool = False
    speedup: float | None = None
    speedup_geomean: float | None = None
    speedup_over_baseline: float | None = None
    latency_ms: float | None = None
    error: str = ""
    stats: dict[str, int] = dataclasses.field(default_factory=dict)


def conclude(results: list[WorkloadResult]) -> Summary:
    """What the workloads come to, by the baseline's rule: one failing workload fails the kernel."""
    stats: dict[str, int] = {}
    for one in results:
        stats[one.status.value] = stats.get(one.status.value, 0) + 1
    failed = next((one for one in results if one.status not in (Status.PASSED, Status.NOT_RUN)), None)
    if failed is not None:
        axes = ", ".join(f"{axis}={value}" for axis, value in failed.axes.items())
        return Summary(status=failed.status, error=f"workload {axes}:\n{failed.error}", stats=stats)
    speedups = [one.speedup for one in results if one.speedup is not None]
    latencies = [one.latency.median_ms for one in results if one.latency is not None]
    over_baseline = [
        one.baseline_ms / one.latency.median_ms for one in results if one.latency is not None and one.baseline_ms
    ]
    return Summary(
        status=Status.PASSED,
        correct=True,
        speedup=statistics.fmean(speedups),
        speedup_geomean=statistics.geometric_mean(speedups),
        speedup_over_baseline=statistics.fmean(over_baseline) if len(over_baseline) == len(results) else None,
        latency_ms=statistics.fmean(latencies),
        stats=stats,
    )
