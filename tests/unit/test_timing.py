"""How calls on a device are timed, on a device that is made up: host and device each have a clock of their own."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
from snakernel.evaluation.timing import MIN_CALLS, MIN_SHORT_CALLS, Timer, Times

LAUNCH_S, KERNEL_S = 30e-6, 50e-6


class Device:
    """Work is queued, each piece for a launch of the host's time; times in seconds."""

    def __init__(self) -> None:
        self.now = self.idle = 0.0

    def queue(self, seconds: float) -> None:
        self.now += LAUNCH_S
        self.idle = max(self.idle, self.now) + seconds

    def wait(self) -> None:
        self.now = max(self.now, self.idle)

    def record(self, event: SimpleNamespace, _stream: object) -> None:
        self.idle = event.at = max(self.idle, self.now)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def timer(device: Device) -> Timer:
    made = Timer("cpu")
    made._clock = lambda: device.now
    made._empty, made._int8 = lambda *_, **__: None, None
    made._event, made._stream = SimpleNamespace, lambda: None
    made._record = device.record
    made._elapsed = lambda first, last: (last.at - first.at) * 1e3
    made._has_come = lambda event: event.at <= device.now
    made._wait = lambda event: setattr(device, "now", max(device.now, event.at))
    made._synchronize = device.wait
    made._sleep = lambda cycles: device.queue(cycles / 1e9)
    made._zero = lambda _: device.queue(80e-6)
    made._timed = made._time_cuda
    return made


def time(timer: Timer, call, *, warmup_runs: int = 10) -> Times:
    contents = SimpleNamespace(pending=False, prepare=lambda number, ending: [], keep=lambda result: None)
    return timer.time(call, contents, warmup_runs=warmup_runs, iterations=100, budget_s=2.0)


@pytest.mark.parametrize("warmup_runs", [0, 10])
def test_the_hosts_launches_are_not_in_the_devices_time(timer: Timer, device: Device, warmup_runs: int) -> None:
    times = time(timer, lambda _: [device.queue(KERNEL_S) for _ in range(3)], warmup_runs=warmup_runs)
    assert len(times.calls_ms) == MIN_CALLS
    assert times.calls_ms == pytest.approx([3 * KERNEL_S * 1e3] * MIN_CALLS)
    assert times.host_ms == pytest.approx([3 * LAUNCH_S * 1e3] * len(times.host_ms))
    assert times.trailing_ms == pytest.approx(0)


def test_the_sleep_before_a_call_is_not_in_the_host_time_of_a_call_that_waits_for_the_device(
    timer: Timer, device: Device
) -> None:
    def waits(_: object) -> None:
        device.queue(KERNEL_S)
        device.wait()

    times = time(timer, waits)
    assert times.waits
    assert times.calls_ms == pytest.approx([KERNEL_S * 1e3] * MIN_CALLS)
    assert times.host_ms == pytest.approx([(LAUNCH_S + KERNEL_S) * 1e3] * len(times.host_ms))


def test_a_call_that_the_host_launches_for_long_does_not_wait(timer: Timer, device: Device) -> None:
    def long(_: object) -> None:
        device.now += 5e-3
        device.queue(KERNEL_S)

    times = time(timer, long)
    assert not times.waits
    assert times.host_ms == pytest.approx([(5e-3 + LAUNCH_S) * 1e3] * len(times.host_ms))


def test_a_call_that_the_host_is_late_with_is_not_counted(timer: Timer, device: Device) -> None:
    calls = itertools.count()

    def now_and_then_late(_: object) -> None:
        device.now += 1e-3 if next(calls) in (13, 15, 40) else 0.0
        device.queue(KERNEL_S)

    times = time(timer, now_and_then_late)
    assert times.calls_ms == pytest.approx([KERNEL_S * 1e3] * len(times.calls_ms))
    assert len(times.host_ms) - len(times.calls_ms) == 2


def test_a_call_that_waits_is_late_at_any_length_of_the_sleep_and_counted(timer: Timer, device: Device) -> None:
    slept: list[float] = []
    sleep = timer._sleep
    timer._sleep = lambda cycles: (slept.append(cycles / 1e9), sleep(cycles))
    lengths = itertools.cycle([50e-6, 60e-6, 70e-6])
    times = time(timer, lambda _: (device.queue(next(lengths)), device.wait()))
    assert len(times.calls_ms) > MIN_SHORT_CALLS
    before, after = slept[2::2], slept[3::2]  # two for each call, after two that tell how long a cycle is
    assert len(set(before)) == len(set(after)) == 1


def test_short_calls_and_those_that_vary_are_made_more_often(timer: Timer, device: Device) -> None:
    assert len(time(timer, lambda _: device.queue(5e-6)).calls_ms) == MIN_SHORT_CALLS
    lengths = itertools.cycle([50e-6, 60e-6, 70e-6])
    assert len(time(timer, lambda _: device.queue(next(lengths))).calls_ms) > MIN_SHORT_CALLS


def test_a_first_call_that_compiles_takes_nothing_from_the_others(timer: Timer, device: Device) -> None:
    slept: list[float] = []

    def compiles(_: object) -> None:
        device.now += 0 if device.now > 3 else 3.0
        device.queue(KERNEL_S)

    sleep = timer._sleep
    timer._sleep = lambda cycles: (slept.append(cycles / 1e9), sleep(cycles))
    times = time(timer, compiles)
    assert times.calls_ms == pytest.approx([KERNEL_S * 1e3] * MIN_CALLS)
    assert times.host_ms == pytest.approx([LAUNCH_S * 1e3] * MIN_CALLS)
    assert max(slept) == pytest.approx(200e-6)


def test_work_beside_the_sleep_is_in_the_host_time_of_the_calls_that_do_it(timer: Timer, device: Device) -> None:
    def beside(_: object) -> None:
        device.now += 2 * KERNEL_S if device.idle > device.now else LAUNCH_S  # less in a warm-up call

    # The first is late, and the sleep is longer from then on.
    assert time(timer, beside).host_ms == pytest.approx([2 * KERNEL_S * 1e3] * (MIN_SHORT_CALLS + 1))


def test_the_host_launches_nothing_while_a_call_is_timed(timer: Timer, device: Device) -> None:
    idle: list[bool] = []
    contents = SimpleNamespace(
        pending=False,
        prepare=lambda number, ending: idle.append(device.idle <= device.now),
        keep=lambda result: idle.append(device.idle <= device.now),
    )
    call = lambda _: device.queue(KERNEL_S)  # noqa: E731
    times = timer.time(call, contents, warmup_runs=10, iterations=100, budget_s=2.0)
    assert len(times.calls_ms) == MIN_CALLS
    assert all(idle[10:])


def test_work_on_a_stream_that_nobody_waits_for_is_told(timer: Timer, device: Device) -> None:
    def aside(_: object) -> None:
        ends = max(device.idle, device.now) + KERNEL_S
        device.wait = lambda: setattr(device, "now", max(device.now, device.idle, ends))
        timer._synchronize = device.wait

    assert time(timer, aside).trailing_ms == pytest.approx(KERNEL_S * 1e3)
