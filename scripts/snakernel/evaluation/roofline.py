"""The least time that a device needs for what a definition implies: a latency below it was not earned.

Only what must be moved or computed whatever the kernel does is counted, so that no honest kernel is refused:

- bytes of inputs that the outputs really depend on: the reference is run again with some elements of an input changed,
  and an input counts only if every change showed (a paged cache of which some pages are used does not);
- bytes of outputs beyond what the L2 cache can hold back;
- operations of matrix products in the reference, at the fastest rate of the device for any type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

PROBES = 8
"""Changed places of an input, each of which must show."""
SURE_SHARE = 0.05 ** (1 / PROBES)
"""So much of it matters then, with 95 % confidence: of a smaller share, all would show in fewer than 5 of 100 cases."""
PROBED_BYTES = 2**20
"""A smaller input is not worth the probing."""
PROBED_MS = 20.0
"""A reference that is slower is not run again and again: its inputs do not count."""
MARGIN = 0.9
"""A latency is refused below this share of the least time: events resolve some tenths of a microsecond."""
RESOLUTION_MS = 0.001


@dataclass(frozen=True)
class Peak:
    """What a device can do at most."""

    bytes_per_s: float
    """Bandwidth of its memory."""
    operations_per_s: float
    """Floating-point operations, dense, at its narrowest type."""
    source: str
    """Where that is from."""


# Vendor's data sheets: memory bandwidth; dense tensor throughput of the narrowest floating-point type.
_SHEETS = {
    "B300": (8.0e12, 1.5e16),
    "B200": (8.0e12, 1.0e16),
    "GH200": (4.9e12, 1.98e15),
    "H200": (4.8e12, 1.98e15),
    "H100 PCIe": (2.0e12, 1.51e15),
    "H100 NVL": (3.94e12, 1.98e15),
    "H100": (3.35e12, 1.98e15),
    "A100": (2.04e12, 0.312e15),
    "L40S": (0.864e12, 0.733e15),
    "L40": (0.864e12, 0.363e15),
    "L4": (0.3e12, 0.242e15),
    "A6000": (0.768e12, 0.155e15),
    "RTX 5090": (1.79e12, 1.68e15),
    "RTX 4090": (1.01e12, 0.66e15),
}
FASTEST_OPERATIONS = 2.0e16
"""For a device that is in no sheet: more than any has."""


def peak_of(name: str, measure: Callable[[], float]) -> Peak:
    """The peak of a device.

    Args:
        name: as its driver names it.
        measure: gives its memory bandwidth in bytes per second; asked only where the device is in no sheet.
    """
    for part, (bandwidth, operations) in _SHEETS.items():
        if re.search(rf"\b{part}\b", name):
            return Peak(bandwidth, operations, f"data sheet of {part}")
    # A copy reaches about nine tenths of the peak.
    return Peak(measure() / 0.85, FASTEST_OPERATIONS, "bandwidth measured by a copy, over 0.85")


def copy_bandwidth() -> float:
    """Memory bandwidth of this process's CUDA device in bytes per second, by the quickest of some large copies."""
    import torch

    size = 2**29
    source, target = (torch.empty(size, dtype=torch.uint8, device="cuda") for _ in range(2))
    best = float("inf")
    for _ in range(10):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        target.copy_(source)
        last.record()
        torch.cuda.synchronize()
        best = min(best, first.elapsed_time(last))
    return 2 * size / (best / 1e3)


@dataclass(frozen=True)
class Floor:
    """The least time of one workload."""

    milliseconds: float
    """The longer of the times for its bytes and for its operations."""
    told: str
    """The arithmetic, in words."""


def floor_of(
    run: Callable[[Sequence[Any]], Any], inputs: Sequence[Any], reference_ms: float, peak: Peak, cache_bytes: int
) -> Floor:
    """The least time for a workload.

    Args:
        run: the reference.
        inputs: one draw of its inputs.
        reference_ms: its latency on them.
        peak: of the device.
        cache_bytes: size of its L2 cache.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        expected = _tensors(run(inputs))
    needed = 0
    with torch.no_grad():
        repeats = all(map(torch.equal, _tensors(run(inputs)), expected))
    # A reference that is not the same twice, or that has NaN in it, would seem to depend on everything.
    if repeats and reference_ms <= PROBED_MS:
        generator = torch.Generator().manual_seed(0)
        for one in inputs:
            if isinstance(one, torch.Tensor) and one.is_floating_point():
                size = one.numel() * one.element_size()
                if size >= PROBED_BYTES and _matters(run, inputs, one, expected, generator):
                    needed += int(size * SURE_SHARE)
    written = max(0, sum(one.numel() * one.element_size() for one in expected) - cache_bytes)
    operations = counter.get_total_flops()
    seconds = max((needed + written) / peak.bytes_per_s, operations / peak.operations_per_s)
    told = (
        f"reading {needed:,} bytes of inputs and writing {written:,} of outputs at {peak.bytes_per_s / 1e9:,.0f} GB/s, "
        f"and {operations:,} operations at {peak.operations_per_s / 1e12:,.0f} TFLOP/s ({peak.source}),"
    )
    return Floor(seconds * 1e3, told)


def _matters(
    run: Callable[[Sequence[Any]], Any], inputs: Sequence[Any], one: Any, expected: list[Any], generator: Any
) -> bool:
    """Whether each of some places of an input shows in the outputs when a row of it there is changed."""
    import torch

    flat = one.view(-1)
    width = one.shape[-1] if one.dim() > 1 else 1
    for _ in range(PROBES):
        row = int(torch.randint(flat.numel() // width, (1,), generator=generator))
        place = flat[row * width : (row + 1) * width]
        kept = place.clone()
        place.copy_((-2 * kept.float() + 1).to(kept.dtype))
        with torch.no_grad():
            found = _tensors(run(inputs))
        same = all(torch.equal(new, old) for new, old in zip(found, expected, strict=True))
        place.copy_(kept)
        if same:
            return False
    return True


def _tensors(result: Any) -> list[Any]:
    import torch

    several = result if isinstance(result, (tuple, list)) else [result]
    return [one.clone() for one in several if isinstance(one, torch.Tensor)]
