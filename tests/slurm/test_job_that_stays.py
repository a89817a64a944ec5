"""One job of SLURM's in which the kernels of many steps are judged (`slurm_job`), on a real SLURM of one node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from workflow.running import TASKS, Project

from slurm.node import Node, missing, slurm_node, wait

pytestmark = pytest.mark.slurm

JOB = "--gpus=1 --time=30 --mem=4000"
SLOW = """```python
import time

time.sleep({seconds})
"""
"""A kernel that takes long to import: what is done to its job is done in the middle of its verdict."""


@pytest.fixture
def cluster() -> Callable[[int], object]:
    if why := missing():
        pytest.skip(why)
    return slurm_node


def test_a_run_has_one_job_and_gives_it_back(cluster: Callable[[int], object], tmp_path: Path) -> None:
    project = Project.create(tmp_path / "project", total_steps=2, slurm_job=JOB)
    with cluster(1) as node:
        project.snakemake(**node.environment)
        again = project.snakemake(**node.environment)
        assert "Nothing to be done" in again.stdout + again.stderr
        (job,) = node.jobs()
        assert job["State"] == "CANCELLED"
    for log in project.results.glob("logs/*/step_*/evaluate.log"):
        assert "PASSED" in log.read_text()
        assert "import 0.00" in log.read_text(), "the warm parent of the job was not found"
    assert len(project.journal()) == 2 * len(TASKS)
    assert not (project.results / ".slurm").exists()


@pytest.mark.parametrize("how", ["scancel", "walltime"])
def test_a_verdict_whose_job_ends_is_asked_of_the_next_job(
    how: str, cluster: Callable[[int], object], tmp_path: Path
) -> None:
    # A walltime is in whole minutes, and SLURM looks every half minute.
    project = slow_project(tmp_path, seconds=20 if how == "scancel" else 100)
    with cluster(1) as node:
        run = start(project, node)
        wait(node, lambda: judging(project, node) or run.poll() is not None, 300)
        (job,) = node.jobs()
        if how == "scancel":
            node.run("scancel", job["JobID"])
        else:
            node.run("scontrol", "update", f"JobId={job['JobID']}", "TimeLimit=1")
        output = "".join(run.communicate(timeout=400))
        assert run.returncode == 0, output
        jobs = node.jobs()
    log = (project.results / "logs" / TASKS[0] / "step_1" / "evaluate.log").read_text()
    assert f"SLURM job {jobs[0]['JobID']}: ended meanwhile" in log and "PASSED" in log
    assert [job["State"] for job in jobs] == ["CANCELLED" if how == "scancel" else "TIMEOUT", "CANCELLED"]
    assert len(project.journal()) == 1


def test_a_run_that_is_killed_leaves_a_job_that_ends_by_itself(
    cluster: Callable[[int], object], tmp_path: Path
) -> None:
    project = slow_project(tmp_path, seconds=20, slurm_idle_s=5)
    with cluster(1) as node:
        run = start(project, node)
        wait(node, lambda: judging(project, node) or run.poll() is not None, 300)
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        # The step ends with its caller, the job when nobody comes.
        wait(node, lambda: not judging(project, node), 60)
        wait(node, lambda: {job["State"] for job in node.jobs()} == {"COMPLETED"}, 120)
        before = len(node.jobs())
        assert not (project.results / TASKS[0] / "step_1" / "evaluation.json").exists()
        project.edit("config.yaml", "slurm_idle_s: 5", "slurm_idle_s: 100")
        project.snakemake("--unlock", **node.environment)
        project.snakemake(**node.environment)
        assert [job["State"] for job in node.jobs()][before:] == ["CANCELLED"]
    assert (project.results / "summary.csv").exists()
    assert not (project.results / ".slurm").exists()


def slow_project(folder: Path, seconds: int, **keys: object) -> Project:
    """One task of one step, whose kernel takes its time."""
    project = Project.create(folder / "project", total_steps=1, slurm_job=JOB, eval_timeout_s=200.0, **keys)
    (project.folder / "tasks.txt").write_text("rmsnorm, rmsnorm_h256\n")
    answer = project.folder / "replay" / "rmsnorm_h256" / "1.md"
    answer.write_text(answer.read_text().replace("```python\n", SLOW.format(seconds=seconds), 1))
    return project


def judging(project: Project, node: Node) -> bool:
    """Whether a step of a job is judging the kernel."""
    log = project.results / "logs" / TASKS[0] / "step_1" / "evaluate.log"
    steps = node.run("squeue", "--steps", "--noheader", "--format=%i").split()
    return log.exists() and any(step.partition(".")[2].isdigit() for step in steps)


def start(project: Project, node: Node) -> subprocess.Popen[str]:
    """Start the workflow, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--configfile", str(project.config), "--cores", "2"],
        cwd=project.folder,
        env={**os.environ, **node.environment, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
