"""Latency of a call.

On a CUDA device the L2 cache is flushed and the inputs are rotated before each call, a sleep is queued on the device
first so that the call is launched while the device is still busy, and a pair of events around it gives the device's own
time, free of the host's launches. On the CPU it is the wall clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

Call = Callable[[Sequence[Any]], Any]

METHODS = {
    "cuda": "CUDA events around each call, launched behind a device-side sleep; L2 flushed; inputs rotated; median",
    "cpu": "wall clock around each call on the CPU (Triton's interpreter); median",
}
L2_FLUSH_BYTES = 256 * 1024 * 1024
SLEEP_US = 200.0
MAX_SLEEP_US = 2000.0
"""A call that the host launches for longer than this is the host's: its gaps are part of its latency."""
QUEUE = 8
"""Calls whose events are read together, so that the host runs ahead of the device."""
QUEUED_S = 0.02
"""Slow calls are queued fewer at a time, so that they notice their budget early."""


def time_calls(
    call: Call, inputs: Sequence[Sequence[Any]], kind: str, *, warmup_runs: int, iterations: int, budget_s: float
) -> tuple[list[float], list[float]]:
    """Time calls; each gets the next of the input sets in turn.

    Returns:
        Latencies in ms, one a call, and the host's times to launch in ms (empty on the CPU). At least one call is
        timed, and no further one is begun after ``budget_s`` seconds of timing.
    """
    timed = _time_cuda if kind == "cuda" else _time_cpu
    return timed(call, inputs, warmup_runs, iterations, budget_s)


def _time_cpu(
    call: Call, inputs: Sequence[Sequence[Any]], warmup_runs: int, iterations: int, budget_s: float
) -> tuple[list[float], list[float]]:
    clock = time.perf_counter
    begun = clock()
    for index in range(warmup_runs):
        if clock() - begun > budget_s / 2:
            break
        call(inputs[index % len(inputs)])
    latencies: list[float] = []
    begun = clock()
    for index in range(iterations):
        arguments = inputs[index % len(inputs)]
        start = clock()
        call(arguments)
        latencies.append((clock() - start) * 1e3)
        if clock() - begun > budget_s:
            break
    return latencies, []


def _time_cuda(
    call: Call, inputs: Sequence[Sequence[Any]], warmup_runs: int, iterations: int, budget_s: float
) -> tuple[list[float], list[float]]:
    import torch

    clock = time.perf_counter
    cycles_per_us = _cycles_per_us()
    flush = torch.empty(L2_FLUSH_BYTES, dtype=torch.int8, device="cuda")
    begun = last_sync = clock()
    queue, launch_us = QUEUE, 0.0
    for index in range(warmup_runs):
        call(inputs[index % len(inputs)])
        launch_us = (clock() - last_sync) * 1e6
        torch.cuda.synchronize()
        # A slow call shows its length here; a fast one is queued with others below, where its length is hidden.
        queue = max(1, min(QUEUE, int(QUEUED_S / (clock() - last_sync))))
        last_sync = clock()
        if last_sync - begun > budget_s / 2:
            break
    # The device must still be asleep when the host has launched everything; the last warm-up call compiled nothing.
    sleep_cycles = int(min(max(SLEEP_US, 1.5 * launch_us), MAX_SLEEP_US) * cycles_per_us)
    latencies: list[float] = []
    host: list[float] = []
    begun = clock()
    index = 0
    while index < iterations:
        pairs = []
        for _ in range(min(queue, iterations - index)):
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            arguments = inputs[index % len(inputs)]
            flush.zero_()
            torch.cuda._sleep(sleep_cycles)
            first.record()
            start = clock()
            call(arguments)
            host.append((clock() - start) * 1e3)
            last.record()
            pairs.append((first, last))
            index += 1
        torch.cuda.synchronize()
        latencies += [first.elapsed_time(last) for first, last in pairs]
        if clock() - begun > budget_s:
            break
    return latencies, host


def _cycles_per_us() -> float:
    """Device clock cycles in a microsecond, for torch.cuda._sleep, from a sleep of known length."""
    import torch

    cycles = 200_000
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(cycles)
    torch.cuda.synchronize()
    first.record()
    torch.cuda._sleep(cycles)
    last.record()
    torch.cuda.synchronize()
    return cycles / (first.elapsed_time(last) * 1e3)
