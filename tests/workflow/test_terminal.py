"""What a person sees of a real run: in a pipe, and in a real terminal (tmux) of 80 and of 200 columns."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from workflow.running import Project

TASK = "rmsnorm_rmsnorm_h256"


def one_task(folder: Path, **keys: object) -> Project:
    """A checkout with one task."""
    project = Project.create(folder, **keys)
    (project.folder / "tasks.txt").write_text("rmsnorm, rmsnorm_h256\n")
    return project


def test_in_a_pipe_it_is_plain_and_short(tmp_path: Path) -> None:
    """A run whose second step fails, since nobody recorded an answer: a line a verdict, the reason, the table."""
    project = one_task(tmp_path / "project", total_steps=2)
    (project.folder / "replay" / "rmsnorm_h256" / "2.md").unlink()
    done = project.snakemake(check=False)
    assert done.returncode == 1
    told = done.stderr
    assert "\x1b" not in told + done.stdout
    assert re.search(rf"^\d\d:\d\d:\d\d +\d+% {TASK} 1/2 PASSED [\d.]+x, best [\d.]+x of step 1, \$0.00$", told, re.M)
    failure = re.search(rf"^.* {TASK} propose of step 2 failed: .*2\.md.* \((.*)\)$", told, re.M)
    assert failure and (project.folder / failure[1]).exists()
    assert len(told.splitlines()) < 15, told
    assert "Correct count 1, total count 1" in done.stdout and "scripts/write_report.py --config" in done.stdout
    assert f"{TASK}: failed: propose of step 2: " in done.stdout
    page = (project.results / "live.html").read_text()
    assert "Ended after" in page and "propose of step 2 failed" in page


@pytest.mark.looks
@pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux here: apt-get install tmux")
@pytest.mark.parametrize(("width", "wide"), [(80, False), (200, True)])
def test_in_a_terminal_it_is_a_live_table(tmp_path: Path, width: int, wide: bool) -> None:
    project = one_task(tmp_path / "project")
    socket, channel = f"snakernel-{uuid.uuid4().hex}", "ended"
    stamp = project.folder / "exit"
    command = shlex.join([sys.executable, "-m", "snakemake", "--configfile", str(project.config), "--cores", "2"])

    def tmux(*arguments: str) -> str:
        done = subprocess.run(["tmux", "-L", socket, *arguments], check=True, capture_output=True, text=True)
        return done.stdout

    size = ["-x", str(width), "-y", "24"]
    script = f"{command}; echo $? > {stamp}; tmux -L {socket} wait-for -S {channel}; exec cat"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        ["tmux", "-L", socket, "new-session", "-d", *size, "-c", str(project.folder), "sh", "-c", script],
        check=True,
        env=environment,
    )
    try:
        screens: list[str] = []
        while not stamp.exists():
            screen = tmux("capture-pane", "-p")
            if not screens or screen != screens[-1]:
                screens.append(screen)
        tmux("wait-for", channel)
        last = tmux("capture-pane", "-p", "-S", "-200")
    finally:
        tmux("kill-server")
    live = [screen for screen in screens if re.search(r"\d+/\d+ jobs, .*\$0\.00", screen)]
    assert live, screens[-3:]
    assert any(re.search(rf"{TASK} +[123]/3 +PASSED +[\d.]+x +\$0\.00", screen) for screen in live), live[-1]
    assert any("judging the kernel of step" in screen for screen in live) == wide
    # One live table at a time, and nothing that it left behind when it went.
    assert all(screen.count("jobs, ") == 1 for screen in live)
    assert not re.search(r"\d+/\d+ jobs, ", last)
    assert stamp.read_text().strip() == "0"
    assert "Correct count 1, total count 1" in last and "report/index.html" in last
    assert "Job " not in last and "rule " not in last
