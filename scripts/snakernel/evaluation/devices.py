"""Which device judges: found, locked and described."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from snakernel.errors import UserError
from snakernel.evaluation.verdict import Conditions, Device

LOCK_FOLDER = "SNAKERNEL_LOCKS"
"""Environment variable: folder of the device locks; default the system's folder for temporary files."""


@contextmanager
def one_device() -> Iterator[str]:
    """Wait for a CUDA device that no other evaluation on this machine uses, and hold it.

    Yields the device's UUID, which CUDA_VISIBLE_DEVICES takes. The lock is a file lock: the kernel drops it when the
    process dies, however it dies.

    Raises:
        UserError: there is no CUDA device.
    """
    devices = cuda_devices()
    if not devices:
        raise UserError(
            "eval_backend 'local' needs a CUDA device, and none is visible on this machine; "
            "set eval_backend to 'cpu' (Triton's interpreter) or 'modal', or run where a GPU is"
        )
    while True:
        for device in devices:
            lock = lock_of(device)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            try:
                yield device
            finally:
                lock.release()
            return
        time.sleep(0.05)


def lock_of(device: str) -> FileLock:
    """The lock that all evaluations on this machine share for a device."""
    folder = Path(os.environ.get(LOCK_FOLDER) or tempfile.gettempdir())
    return FileLock(folder / f"snakernel-{device}.lock", mode=0o666)


def cuda_devices() -> list[str]:
    """UUIDs of the visible CUDA devices."""
    try:
        known = _uuids()
    except Exception:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return list(known.values())
    named = [name.strip() for name in visible.split(",") if name.strip()]
    return [known.get(name, name) for name in named if name != "-1"]


@cache
def _uuids() -> dict[str, str]:
    """UUIDs of this machine's CUDA devices by their numbers, through NVML: CUDA is not started, so that processes
    can still fork; neither does NVML stay started."""
    import pynvml

    pynvml.nvmlInit()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return {str(index): _text(pynvml.nvmlDeviceGetUUID(handle)) for index, handle in enumerate(handles)}
    finally:
        pynvml.nvmlShutdown()


@cache
def _nvml() -> Any:
    """NVML, which takes tens of milliseconds to start: once for a process that judges."""
    import pynvml

    pynvml.nvmlInit()
    return pynvml


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


def describe(kind: str) -> Device:
    """The device that this process computes on."""
    if kind == "cpu":
        return Device(kind="cpu", name=_cpu_name())
    import torch

    properties = torch.cuda.get_device_properties(0)
    driver = None
    with suppress(Exception):  # a device may be there without NVML
        driver = _text(_nvml().nvmlSystemGetDriverVersion())
    return Device(
        kind="cuda",
        name=properties.name,
        uuid=f"GPU-{properties.uuid}",
        driver=driver,
        capability=f"{properties.major}.{properties.minor}",
        memory_gb=round(properties.total_memory / 1e9, 1),
    )


def conditions(uuid: str | None, own: set[int]) -> Conditions | None:
    """The state of a CUDA device, through NVML; None where NVML does not tell.

    Args:
        uuid: the device.
        own: processes that are the evaluation's own.
    """
    try:
        pynvml = _nvml()
    except Exception:
        return None
    found: dict[str, Any] = {}

    def ask(name: str, question: Callable[[], Any]) -> None:
        with suppress(pynvml.NVMLError):  # not every device answers everything
            found[name] = question()

    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        ask("sm_clock_mhz", lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))
        ask("memory_clock_mhz", lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM))
        ask("temperature_c", lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
        ask("power_w", lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3)
        ask("throttled", lambda: _reasons(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)))
        ask(
            "other_processes",
            lambda: sorted({one.pid for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)} - own),
        )
    except pynvml.NVMLError:
        return None
    return Conditions(**found)


def _reasons(bits: int) -> list[str]:
    import pynvml

    prefix = "nvmlClocksThrottleReason"
    return [
        name.removeprefix(prefix)
        for name in sorted(vars(pynvml))
        if name.startswith(prefix)
        and isinstance(value := getattr(pynvml, name), int)
        and value & bits
        and value & (value - 1) == 0
        and name.removeprefix(prefix) not in ("None", "GpuIdle", "All")
    ]


@cache
def versions() -> dict[str, str]:
    """Versions of what decides a verdict."""
    import torch

    found = {"python": platform.python_version(), "torch": torch.__version__}
    # flashinfer_bench.__version__ is 0.0.0.dev0 in the released wheel: only the metadata is right.
    for name in ("triton", "flashinfer-bench", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
