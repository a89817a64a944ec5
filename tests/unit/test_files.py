"""What killed processes leave half, and what is nobody else's to remove."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from snakernel.files import scratch_folder, write_text


def killed(function: Callable[[], object]) -> None:
    """Call a function in a fork that kills itself."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def kill_itself(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_half_file_goes_when_it_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kernel.py"
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", kill_itself)
        killed(lambda: write_text(path, "half"))
    (left,) = tmp_path.iterdir()
    assert left.match(".kernel.py.*.tmp")
    write_text(tmp_path / "kernel.pyc", "another file")
    assert left.exists()
    write_text(path, "whole")
    assert path.read_text() == "whole"
    assert not left.exists()


def test_a_file_that_another_writes_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, replace = tmp_path / "kernel.py", os.replace

    def write_another(*names: str) -> None:
        monkeypatch.setattr(os, "replace", replace)
        write_text(path, "another's")
        assert path.read_text() == "another's"
        replace(*names)

    monkeypatch.setattr(os, "replace", write_another)
    write_text(path, "mine")
    assert path.read_text() == "mine"


def test_a_killed_process_leaves_its_scratch_folder_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def work() -> None:
        with scratch_folder() as scratch:
            (scratch / "cache").mkdir()
            kill_itself()

    with scratch_folder() as mine:
        killed(work)
        assert len(list(tmp_path.iterdir())) == 2
        with scratch_folder() as next_one:
            assert sorted(tmp_path.iterdir()) == sorted([mine, next_one])
    assert not list(tmp_path.iterdir())
