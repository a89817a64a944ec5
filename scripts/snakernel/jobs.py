"""What the workflow's jobs find in their environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from snakernel.warm import RUN_PID

RUN_JOB = "SNAKERNEL_RUN_JOB"
"""Environment variable: the SLURM job in which RUN_PID is; empty outside of all."""


def set_job_environment(scripts: Path) -> None:
    """Let jobs find the scripts and this very Python, wherever the workflow was started.

    With conda, the environment's own Python comes before it.
    """
    os.environ["SNAKERNEL_SCRIPTS"] = str(scripts)
    # The warm parent goes when this process does. SLURM hands a job the environment of the machine that submitted it,
    # whose processes are not there.
    job = os.environ.get("SLURM_JOB_ID", "")
    if RUN_PID not in os.environ or os.environ.get(RUN_JOB, job) != job:
        os.environ[RUN_PID] = str(os.getpid())
    os.environ[RUN_JOB] = job
    folder = str(Path(sys.executable).parent)
    if os.environ.get("PATH", "").split(os.pathsep)[0] != folder:
        os.environ["PATH"] = os.pathsep.join([folder, os.environ.get("PATH", os.defpath)])
