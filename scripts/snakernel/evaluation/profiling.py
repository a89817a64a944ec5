"""What Nsight Compute says of a correct kernel: throughputs against the device's peaks, and what its warps wait for.

The kernel runs once more, in a process of its own below ncu, which is confined like a candidate's: see
``scripts/profiler.py``. What comes of it is for the next prompt and for people, and decides nothing.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from snakernel.evaluation import inputs as drawing
from snakernel.evaluation.sandbox import NOBODY, Sandbox, blob_folders
from snakernel.evaluation.verdict import Profile, ProfiledKernel, WorkloadResult

if TYPE_CHECKING:
    from flashinfer_bench.data import Definition, Solution, Workload

SCRIPT = Path(__file__).parents[2] / "profiler.py"
SECTIONS = ("SpeedOfLight", "MemoryWorkloadAnalysis", "Occupancy", "WarpStateStats")
MAX_KERNELS = 4
MAX_STALLS = 3
MAX_BYTES = 16 * 2**20
PEAK = ".avg.pct_of_peak_sustained_elapsed"
FIELDS = {
    "memory": f"gpu__compute_memory_throughput{PEAK}",
    "dram": f"gpu__dram_throughput{PEAK}",
    "compute": f"sm__throughput{PEAK}",
    "tensor": f"sm__pipe_tensor_cycles_active{PEAK}",
    "occupancy": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "l2_hits": "lts__t_sector_hit_rate.pct",
}
STALLED = ("smsp__average_warps_issue_stalled_", "_per_issue_active.ratio")
CYCLES = "smsp__average_warp_latency_per_inst_issued.ratio"
WAITS = {
    "barrier": "a barrier of the block",
    "branch_resolving": "a branch",
    "dispatch_stall": "the dispatcher",
    "drain": "stores at the end",
    "gmma": "the tensor cores",
    "imc_miss": "the constant cache",
    "lg_throttle": "a full queue of global accesses",
    "long_scoreboard": "global or local memory",
    "math_pipe_throttle": "a busy arithmetic unit",
    "membar": "a memory fence",
    "mio_throttle": "a full queue of shared memory accesses",
    "no_instruction": "instructions",
    "not_selected": "other warps that are ready",
    "short_scoreboard": "shared memory or special functions",
    "tex_throttle": "a full queue of texture accesses",
    "wait": "results of fixed latency",
}
"""Nsight Compute's names of warp states, in words; `selected` is no waiting."""


def find_profiler() -> str | None:
    """Where ncu is: on the PATH, or in a CUDA toolkit; None where it is not."""
    folders = [f"{os.environ[name]}/bin" for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    places = [os.environ.get("PATH", ""), *folders, "/usr/local/cuda/bin"]
    found = shutil.which("ncu", path=os.pathsep.join(places))
    return os.path.realpath(found) if found else None


def profile(
    definition: Definition,
    workloads: list[Workload],
    solution: Solution,
    results: list[WorkloadResult],
    *,
    seed: int,
    timeout_s: float,
    dataset: Path,
    hidden: list[Path],
) -> Profile:
    """Profile one call of a correct kernel, on the workload that takes longest.

    Args:
        definition: what it computes.
        workloads: what it was judged on.
        solution: the kernel.
        results: the verdict on each of them.
        seed: the run's.
        timeout_s: seconds after which it is given up.
        dataset: where blobs are.
        hidden: folders that it must not see.

    Returns:
        The profile; its ``error`` says why there is none. A kernel that fails here fails nowhere else.
    """
    ncu = find_profiler()
    if ncu is None:
        return Profile(error="Nsight Compute (ncu) is neither on the PATH nor in CUDA_HOME")
    # A call of a few microseconds tells of its launch, and not of the kernel.
    index = max(range(len(results)), key=lambda one: latency.median_ms if (latency := results[one].latency) else 0.0)
    scratch = Path(tempfile.mkdtemp(prefix="snakernel-profile-"))
    told = Profile(axes=results[index].axes)
    try:
        # Planned here: whoever is confined cannot look around any more.
        sandbox = Sandbox.plan(scratch, blob_folders([workloads[index]], dataset), hidden)
        request = {
            "definition": definition.model_dump(mode="json"),
            "solution": solution.model_dump(mode="json"),
            "workload": workloads[index].model_dump(mode="json"),
            "seed": drawing.draw_seed(seed, workloads[index], 0),
            "dataset": str(dataset),
            "sandbox": {
                "readable": [str(path) for path in sandbox.readable],
                "devices": [str(path) for path in sandbox.devices],
                "abi": sandbox.abi,
                "no_network": sandbox.no_network,
            },
            "ncu": [ncu, "--log-file", str(scratch / "ncu" / "log.csv"), *options()],
        }
        (scratch / "request.json").write_text(json.dumps(request))
        for folder in (scratch, scratch / "ncu", scratch / "kernel"):
            folder.mkdir(exist_ok=True)
            if os.geteuid() == 0:
                os.chown(folder, NOBODY, NOBODY)
        if os.geteuid() == 0 and scratch.parent.stat().st_uid == 0:
            scratch.parent.chmod(scratch.parent.stat().st_mode | 0o011)  # to get to its own folder
        with (scratch / "output.txt").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, str(SCRIPT), "--folder", str(scratch)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                told.error = f"not profiled within {timeout_s:g} s"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log = scratch / "ncu" / "log.csv"
        text = log.read_bytes()[:MAX_BYTES].decode("utf-8", "replace") if log.is_file() else ""
        kernels = read_log(text)
        told.launches, told.kernels = len(kernels), kernels[:MAX_KERNELS]
        if not kernels and not told.error:
            said = text + (scratch / "output.txt").read_text(errors="replace")[-4000:]
            wrong = [line for line in said.splitlines() if "ERROR" in line or "Error" in line]
            told.error = f"nothing was profiled: {' '.join(wrong)[-1000:] or said[-500:]}"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return told


def options() -> list[str]:
    """What ncu is to measure and how it tells it; only between cudaProfilerStart and cudaProfilerStop."""
    sections = [argument for section in SECTIONS for argument in ("--section", section)]
    # Clocks stay as they are: fixing them needs privileges, and other jobs may be on the machine.
    told = ["--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none"]
    return [*told, "--target-processes", "all", "--profile-from-start", "off", *sections]


def read_log(text: str) -> list[ProfiledKernel]:
    """The launches in ncu's CSV (raw page, base units), the longest first.

    What the kernel's process may have written there is read as little as it says sense: rows that are none are left
    out, and a metric that this ncu or device does not know is None.
    """
    lines = [line for line in text.splitlines() if line.startswith('"')]
    if not lines:
        return []
    rows = list(csv.reader(lines))
    head = rows[0]
    found = []
    for row in rows[1:]:
        values = dict(zip(head, row, strict=False))
        duration = _number(values.get("gpu__time_duration.sum"))
        if duration is None or not values.get("Kernel Name"):
            continue  # the row of units
        kernel = ProfiledKernel(name=values["Kernel Name"][:120], time_us=duration / 1e3)
        for field, metric in FIELDS.items():
            setattr(kernel, field, _number(values.get(metric)))
        cycles = _number(values.get(CYCLES))
        waits = [(_number(values.get(name.join(STALLED))) or 0.0, words) for name, words in WAITS.items()]
        if cycles:
            # Counted in several runs of the kernel, which for a short one differ: shares of more than all say nothing.
            issued = _number(values.get("selected".join(STALLED))) or 0.0
            cycles = max(cycles, issued + sum(value for value, _ in waits))
            longest = sorted(waits, reverse=True)[:MAX_STALLS]
            kernel.stalls = {words: round(100 * value / cycles, 1) for value, words in longest if value}
        found.append(kernel)
    return sorted(found, key=lambda one: one.time_us, reverse=True)


def _number(text: str | None) -> float | None:
    try:
        value = float((text or "").replace(",", ""))
    except ValueError:
        return None
    return value if abs(value) < 1e18 else None
