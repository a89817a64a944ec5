"""What is submitted to a cluster, and what a job there finds. The real thing: tests/slurm."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from conftest import REPOSITORY
from snakernel.jobs import RUN_JOB, set_job_environment
from snakernel.warm import RUN_PID


def test_only_rules_that_ask_for_a_gpu_are_submitted() -> None:
    rules: dict[str, bool] = {"all": False}
    for file in (REPOSITORY / "rules").glob("*.smk"):
        for part in re.split(r"^rule ", file.read_text(), flags=re.MULTILINE)[1:]:
            rules[part.partition(":")[0]] = "gpu=" in part
    text = (REPOSITORY / "Snakefile").read_text()
    local, with_modal = (set(re.findall(r"\w+", part)) for part in re.findall(r"localrules:\n((?: +\w+,\n)+)", text))
    assert local == {name for name, gpu in rules.items() if not gpu}
    assert with_modal == {name for name, gpu in rules.items() if gpu}


@pytest.mark.parametrize(
    ("where", "run", "job", "kept"),
    [
        ({}, "7", "", True),  # a job on one machine
        ({}, "7", None, True),  # the run's process was named by hand
        ({"SLURM_JOB_ID": "3"}, "7", "", False),  # a job of SLURM's, with the environment of the submitting machine
        ({"SLURM_JOB_ID": "3"}, "7", "3", True),  # the workflow itself runs in a job of SLURM's
        ({"SLURM_JOB_ID": "4"}, "7", "3", False),  # and submits another
    ],
)
def test_the_process_of_the_run_is_one_of_this_machine(
    where: dict[str, str], run: str, job: str | None, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_JOB_ID", RUN_JOB):
        monkeypatch.setenv(name, "")  # so that what is set meanwhile is taken back
        monkeypatch.delenv(name)
    for name, value in {**where, RUN_PID: run, "PATH": os.environ["PATH"], "SNAKERNEL_SCRIPTS": ""}.items():
        monkeypatch.setenv(name, value)
    if job is not None:
        monkeypatch.setenv(RUN_JOB, job)
    set_job_environment(Path("scripts"))
    assert os.environ[RUN_PID] == (run if kept else str(os.getpid()))
    assert os.environ[RUN_JOB] == where.get("SLURM_JOB_ID", "")
