"""Cleaning a run never takes an answer, a prompt, a kernel or a verdict."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY
from snakernel.files import write_text

RUN = REPOSITORY / "tests" / "results" / "1" / "iterative"


def test_what_can_be_made_again_goes_and_the_rest_stays(tmp_path: Path) -> None:
    results = tmp_path / "run"
    shutil.copytree(RUN, results)
    before = {path.relative_to(results): path.read_bytes() for path in results.rglob("*") if path.is_file()}
    for name in ("rmsnorm_rmsnorm_h256/reference/expected/a.safetensors", "logs/x.log", "exports/contest/config.toml"):
        write_text(results / name, "x" * 1000)
    command = [sys.executable, str(REPOSITORY / "scripts" / "clean_run.py"), str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 files removed" in done.stdout
    assert (results / "logs" / "x.log").exists()
    subprocess.run([*command, "--logs", "--exports"], check=True, capture_output=True)
    after = {path.relative_to(results): path.read_bytes() for path in results.rglob("*") if path.is_file()}
    assert after == before
    assert (results / "rmsnorm_rmsnorm_h256" / "reference" / "expected").is_dir()


def test_another_folder_is_left_alone(tmp_path: Path) -> None:
    write_text(tmp_path / "exports" / "mine", "x")
    command = [sys.executable, str(REPOSITORY / "scripts" / "clean_run.py"), str(tmp_path), "--exports"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is no run" in done.stderr
    assert (tmp_path / "exports" / "mine").exists()
