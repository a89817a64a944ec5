"""The workflow on a real SLURM of one node: `make test-slurm`, as root, with Debian's slurm-wlm and munge."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from workflow.running import TASKS, Project

from slurm.node import Node, missing, slurm_node, wait

pytestmark = pytest.mark.slurm

GPU_RULES = ("measure_reference", "evaluate", "confirm_best")
# The cpu backend asks for no GPU: here the jobs are to ask for one, as they do with eval_backend local.
ARGUMENTS = (
    "--workflow-profile=profiles/slurm",
    "--set-resources",
    *(f"{rule}:gpu=1" for rule in GPU_RULES),
    "--slurm-status-command=squeue",  # the node keeps no accounts
    "--slurm-init-seconds-before-status-checks=1",
    "--seconds-between-status-checks=1",
    "--latency-wait=5",
)


@pytest.fixture
def cluster() -> Callable[[int], object]:
    if why := missing():
        pytest.skip(why)
    if find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("the plugin is not installed: pip install -r requirements-slurm.txt")
    return slurm_node


@pytest.mark.parametrize("gpus", [1, 2])
def test_kernels_are_judged_on_as_many_gpus_as_there_are(
    cluster: Callable[[int], object], gpus: int, tmp_path: Path
) -> None:
    project = Project.create(tmp_path / "project", total_steps=1)
    with cluster(gpus) as node:
        project.snakemake(*ARGUMENTS, **node.environment)
        jobs = node.jobs()
        again = project.snakemake(*ARGUMENTS, **node.environment)
        assert len(node.jobs()) == len(jobs) and "Nothing to be done" in again.stdout + again.stderr
    assert len(jobs) == 3 * len(TASKS)
    assert {job["State"] for job in jobs} == {"COMPLETED"}
    assert {job["tres-per-job"] for job in jobs} == {"gres:gpu:1"}
    assert {rule_of(job) for job in jobs} == set(GPU_RULES)
    assert most_at_once(jobs) == gpus
    assert len(project.journal()) == len(TASKS)
    assert (project.results / "summary.csv").exists()


def test_a_run_that_was_cancelled_goes_on_and_asks_nobody_again(
    cluster: Callable[[int], object], tmp_path: Path
) -> None:
    project = Project.create(tmp_path / "project", total_steps=2)
    (project.folder / "tasks.txt").write_text("rmsnorm, rmsnorm_h256\n")
    with cluster(1) as node:
        run = start(project, node)
        judging: list[dict[str, str]] = []

        def judges() -> bool:
            judging[:] = [job for job in node.jobs() if job["State"] == "RUNNING" and rule_of(job) == "evaluate"]
            return bool(judging) or run.poll() is not None

        wait(node, judges, 300)
        assert judging, run.communicate()
        node.run("scancel", judging[0]["JobID"])
        # Then the whole run, as someone does who sees jobs fail.
        wait(node, lambda: state_of(node, judging[0]["JobID"]) == "CANCELLED", 60)
        run.send_signal(signal.SIGTERM)
        output = "".join(run.communicate(timeout=180))
        assert run.returncode, output
        paid = project.journal()
        assert paid and not (project.results / "summary.csv").exists()
        for name in paid:
            task, step = name.removesuffix(".json").split("/")
            (answer,) = (project.folder / "replay" / task.partition("_")[2]).glob(f"{step}.md")
            answer.unlink()  # whoever asks for it again fails
        project.snakemake(*ARGUMENTS, **node.environment)
        assert (project.results / "summary.csv").exists()
        assert {name: entry for name, entry in project.journal().items() if name in paid} == paid
        assert len(project.journal()) == 2
        done = [job for job in node.jobs() if job["State"] == "COMPLETED"]
        assert sorted(map(rule_of, done)) == ["confirm_best", "evaluate", "evaluate", "measure_reference"]


def start(project: Project, node: Node) -> subprocess.Popen[str]:
    """Start the workflow."""
    command = [sys.executable, "-m", "snakemake", "--configfile", str(project.config), "--cores", "2", *ARGUMENTS]
    return subprocess.Popen(
        command,
        cwd=project.folder,
        env={**os.environ, **node.environment, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rule_of(job: dict[str, str]) -> str:
    """The rule that a job of SLURM's is of."""
    found = re.match(r"rule_([a-z_]+?)(?:_wildcards_|$)", job["Comment"])
    assert found, job
    return found[1]


def state_of(node: Node, number: str) -> str:
    """The state of a job of SLURM's."""
    (state,) = (job["State"] for job in node.jobs() if job["JobID"] == number)
    return state


def most_at_once(jobs: list[dict[str, str]]) -> int:
    """How many jobs ran at once, by SLURM's times in whole seconds; one that ends as another begins is before it."""
    return max(sum(other["StartTime"] <= job["StartTime"] < other["EndTime"] for other in jobs) for job in jobs)
