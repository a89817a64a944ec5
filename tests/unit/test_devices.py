"""Eight devices: each holds one evaluation at a time, and none is idle while one waits."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from evaluating import wait_for
from snakernel.evaluation import devices

DEVICES = [f"GPU-{number}" for number in range(8)]
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def eight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with eight devices; the folder of their locks, in which holders also write what they hold."""
    monkeypatch.setattr(devices, "cuda_devices", lambda: DEVICES)
    monkeypatch.setenv(devices.LOCK_FOLDER, str(tmp_path))
    return tmp_path


def start(target: Callable[..., None], *arguments: object) -> multiprocessing.process.BaseProcess:
    process = FORK.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def hold(folder: Path, all_at_once: Barrier) -> None:
    """Hold a device until eight are held."""
    with devices.one_device() as device:
        # Whoever finds the mark of another has a device that is not its own.
        mark = os.open(folder / f"{device}.held", os.O_CREAT | os.O_EXCL)
        all_at_once.wait(timeout=60)
        os.close(mark)
        (folder / f"{device}.held").unlink()


def test_eight_devices_are_held_at_once_and_each_by_one(eight: Path) -> None:
    """Three times as many want one, and nobody goes on before all eight are in use."""
    all_at_once = FORK.Barrier(len(DEVICES))
    holders = [start(hold, eight, all_at_once) for _ in range(3 * len(DEVICES))]
    for holder in holders:
        holder.join(90)
    assert [holder.exitcode for holder in holders] == [0] * len(holders)


def keep(folder: Path) -> None:
    with devices.one_device() as device:
        written = folder / f"{os.getpid()}.writing"
        written.write_text(device)
        written.rename(folder / f"{os.getpid()}.has")
        signal.pause()


def test_the_device_of_a_killed_evaluation_is_free(eight: Path) -> None:
    holders = [start(keep, eight) for _ in DEVICES]
    wait_for(lambda: len(list(eight.glob("*.has"))) == len(DEVICES))
    held = {path.stem: path.read_text() for path in eight.glob("*.has")}
    assert sorted(held.values()) == DEVICES
    holders[3].kill()
    holders[3].join()
    late = start(keep, eight)
    wait_for((eight / f"{late.pid}.has").exists)
    assert (eight / f"{late.pid}.has").read_text() == held[str(holders[3].pid)]
    for holder in (*holders, late):
        holder.kill()
        holder.join()
