"""Latency of a call.

On a CUDA device the L2 cache is flushed before each call, each call gets values that no call has seen, a sleep is
queued on the device first so that the call is launched while the device is still busy, and a pair of events around it
gives the device's own time, free of the host's launches. The host launches nothing else until the call is over: what it
queues meanwhile makes a call of 5 us longer by half a microsecond, and by another length in another process (H200,
docs/evaluation.md, Noise). On the CPU it is the wall clock.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Call = Callable[[Sequence[Any]], Any]

METHODS = {
    "cuda": "CUDA events around each call, launched behind a device-side sleep, one at a time; L2 flushed; new values "
    "in each call; median of calls until its 95 % interval is tight",
    "cpu": "wall clock around each call on the CPU (Triton's interpreter); new values in each call; median",
}
L2_FLUSH_BYTES = 256 * 1024 * 1024
SLEEP_US, QUIET_US = 80.0, 30.0
"""The first hides the launch of most calls, then the device sleeps for the second. A call whose launch took longer than
the first is not counted, and the first is longer from then on."""
MAX_SLEEP_US = 2000.0
"""A call that the host launches for longer than this is the host's: its gaps are part of its latency."""
MIN_CALLS, MIN_SHORT_CALLS, SHORT_MS = 8, 16, 0.02
"""So many calls are made at least, and so many of those that take less than SHORT_MS."""
TIGHT, TIGHT_MS = 0.01, 0.00015
"""Then no further call is begun when the interval of the median is within this share of it to each side, or within
these milliseconds: by as much a latency differs from one process to another (H200), which no call helps."""
TRAILING_CALLS, SETTLED_MS = 5, 0.05
"""After so many calls at most it is looked at whether the device works on; one after which it does for less is enough,
since it takes the host some microseconds to see it idle."""


class Contents(Protocol):
    """Where the arguments of calls come from."""

    pending: bool
    """Some call must still be made, however long it takes."""

    def prepare(self, number: int, ending: bool) -> Sequence[Any]:
        """The arguments of a timed call, 0, 1, ...; of a warm-up call where ``number`` is negative."""
        ...

    def keep(self, result: Any) -> None:
        """See what the last call returned."""
        ...


@dataclass
class Times:
    """What was measured."""

    calls_ms: list[float] = field(default_factory=list)
    """Latency of each call, in milliseconds."""
    host_ms: list[float] = field(default_factory=list)
    """The host's time to launch each call, in milliseconds (of warm-up calls where calls wait for the device); empty on
    the CPU."""
    waits: bool = False
    """The host waits for the device in a call, so that its way back is part of the latency."""
    trailing_ms: float | None = None
    """How long the device still worked after the last event of a call, the least of a few calls; None on the CPU."""


def median_interval(calls_ms: Sequence[float]) -> tuple[float, float, float]:
    """The median and its distribution-free 95 % interval: order statistics of ranks n/2 -+ 1.96 sqrt(n)/2."""
    ordered = sorted(calls_ms)
    count = len(ordered)
    reach = 1.96 * math.sqrt(count) / 2
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    low, high = ordered[max(0, math.floor(count / 2 - reach))], ordered[min(count - 1, math.ceil(count / 2 + reach))]
    return middle, low, high


class Timer:
    """Times calls. What it uses is bound when it is made, so that a kernel that is imported later and puts something
    else in its place changes nothing."""

    def __init__(self, kind: str):
        """``kind`` is cuda or cpu; CUDA is not started yet."""
        import torch

        self._clock = time.perf_counter
        self._tight, self._median, self._times = _is_tight, statistics.median, Times
        self._timed = self._time_cuda if kind == "cuda" else self._time_cpu
        if kind == "cuda":
            self._empty, self._int8 = torch.empty, torch.int8
            event, base = torch.cuda.Event, torch._C._CudaEventBase
            self._event = lambda: event(enable_timing=True)
            self._record, self._elapsed, self._wait = base.record, base.elapsed_time, base.synchronize
            self._has_come = base.query
            self._sleep, self._zero = torch._C._cuda_sleep, torch._C.TensorBase.zero_
            self._stream, self._synchronize = torch.cuda.current_stream, torch.cuda.synchronize

    def time(self, call: Call, contents: Contents, *, warmup_runs: int, iterations: int, budget_s: float) -> Times:
        """Time calls, at most ``iterations``, at least one, and what ``contents`` still needs.

        No further call is begun after ``budget_s`` seconds of timing, or when the median is known well enough.
        """
        return self._timed(call, contents, warmup_runs, iterations, budget_s)

    def _time_cpu(self, call: Call, contents: Contents, warmup_runs: int, iterations: int, budget_s: float) -> Times:
        clock, times = self._clock, self._times()
        begun = clock()
        for number in range(warmup_runs):
            if clock() - begun > budget_s / 2:
                break
            call(contents.prepare(number - warmup_runs, False))
        begun = clock()
        ending = False
        while not ending or contents.pending:
            arguments = contents.prepare(len(times.calls_ms), ending)
            start = clock()
            result = call(arguments)
            times.calls_ms.append((clock() - start) * 1e3)
            contents.keep(result)
            ending = len(times.calls_ms) >= iterations or clock() - begun > budget_s
        return times

    def _time_cuda(self, call: Call, contents: Contents, warmup_runs: int, iterations: int, budget_s: float) -> Times:
        clock, record, times = self._clock, self._record, self._times()
        flush = self._empty(L2_FLUSH_BYTES, dtype=self._int8, device="cuda")
        self._synchronize()
        cycles_per_us = self._cycles_per_us()
        begun = clock()
        launches_ms: list[float] = []
        for number in range(warmup_runs):
            arguments = contents.prepare(number - warmup_runs, False)
            self._synchronize()
            start = clock()
            call(arguments)
            launches_ms.append((clock() - start) * 1e3)
            self._synchronize()
            if number == 0:
                begun = clock()  # a call that compiled says nothing of the next ones
            elif clock() - begun > budget_s / 2:
                break
        # The device must still be asleep when the host has launched everything; the last warm-up call compiled nothing.
        launch_us = 1e3 * launches_ms[-1] if launches_ms else 0.0
        sleep_us = min(max(SLEEP_US, 1.5 * launch_us), MAX_SLEEP_US)
        awake, first, last = self._event(), self._event(), self._event()
        begun = clock()
        ending = False
        on_time_ms: list[float] = []
        late_ms: list[float] = []
        while not ending or contents.pending:
            arguments = contents.prepare(len(times.host_ms), ending)
            self._zero(flush)
            self._sleep(int(sleep_us * cycles_per_us))
            record(awake, self._stream())
            self._sleep(int(QUIET_US * cycles_per_us))
            record(first, self._stream())
            start = clock()
            result = call(arguments)
            times.host_ms.append((clock() - start) * 1e3)
            record(last, self._stream())
            late = self._has_come(awake)  # the device may have waited for the launch
            self._synchronize()
            contents.keep(result)
            if late and launches_ms:
                # A call that waits for the device waits for most of the sleep, and is late at any length of it.
                waited_ms = self._median(times.host_ms) - self._median(launches_ms)
                times.waits = waited_ms > 0.75e-3 * (sleep_us + QUIET_US)
            counts = not late or times.waits or sleep_us >= MAX_SLEEP_US
            (on_time_ms if counts else late_ms).append(self._elapsed(first, last))
            if not counts:
                sleep_us = min(2 * sleep_us, MAX_SLEEP_US)
            enough = len(times.host_ms) >= iterations or self._tight(on_time_ms)
            ending = enough or clock() - begun > budget_s
        times.calls_ms = on_time_ms or late_ms
        if times.waits:
            times.host_ms = launches_ms  # its own time is that of a warm-up call
        trailing_ms = [self._trailing_ms(call, contents)]
        while trailing_ms[-1] > SETTLED_MS and len(trailing_ms) < TRAILING_CALLS:
            trailing_ms.append(self._trailing_ms(call, contents))
        times.trailing_ms = min(trailing_ms)
        return times

    def _trailing_ms(self, call: Call, contents: Contents) -> float:
        """How long the device works on after a call's last event: on a stream that the event does not wait for."""
        arguments, last = contents.prepare(-1, False), self._event()
        self._synchronize()
        call(arguments)
        self._record(last, self._stream())
        self._wait(last)
        start = self._clock()
        self._synchronize()
        return (self._clock() - start) * 1e3

    def _cycles_per_us(self) -> float:
        """Device clock cycles in a microsecond, from a sleep of known length."""
        cycles = 200_000
        first, last = self._event(), self._event()
        self._sleep(cycles)
        self._synchronize()
        self._record(first, self._stream())
        self._sleep(cycles)
        self._record(last, self._stream())
        self._synchronize()
        return cycles / (self._elapsed(first, last) * 1e3)


def _is_tight(calls_ms: Sequence[float]) -> bool:
    if len(calls_ms) < MIN_CALLS:
        return False
    middle, low, high = median_interval(calls_ms)
    if middle < SHORT_MS and len(calls_ms) < MIN_SHORT_CALLS:
        return False
    return high - low <= 2 * max(TIGHT * middle, TIGHT_MS)
