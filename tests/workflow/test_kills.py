"""A run that is killed with kill -9, whatever it was doing: every answer that was kept is used, and the run ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from evaluating import wait_for
from snakernel.files import read_model
from snakernel.summary import Summary

from workflow.running import Project

MOMENTS = {
    "the first answer is kept": "answers/*/1.json",
    "the first kernel is there": "*/step_1/kernel.py",
    "the first verdict is there": "*/step_1/evaluation.json",
    "the second step is asked": "*/step_2/response.json",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on(tmp_path: Path, moment: str) -> None:
    project = Project.create(tmp_path / "project", total_steps=2)
    command = [sys.executable, "-m", "snakemake", "--configfile", str(project.config), "--cores", "2"]
    run = subprocess.Popen(command, cwd=project.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(project.results.glob(MOMENTS[moment])), 90)
    jobs = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.wait()
    for job in jobs:
        job.kill()
    # The warm parent sees that its run is gone.
    wait_for(lambda: not [one for one in psutil.process_iter(["cmdline"]) if f"--run-pid {run.pid}" in _line(one)])
    before = project.journal()
    assert before
    for answer in before:
        task, step = Path(answer).parent.name, Path(answer).stem
        (project.folder / "replay" / task.partition("_")[2] / f"{step}.md").unlink()
    project.snakemake("--unlock")
    project.snakemake()
    assert project.plan() == {}
    after = project.journal()
    assert {name: after[name] for name in before} == before
    assert [row.status for row in read_model(project.results / "summary.json", Summary).tasks] == ["done", "done"]
    assert not list(project.results.rglob("*.tmp"))


def _line(process: psutil.Process) -> str:
    return " ".join(process.info["cmdline"] or [])
