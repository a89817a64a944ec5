"""What the workflow's jobs find in their environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from snakernel.evaluation.warm import RUN_PID


def set_job_environment(scripts: Path) -> None:
    """Let jobs find the scripts and this very Python, wherever the workflow was started.

    With conda, the environment's own Python comes before it.
    """
    os.environ["SNAKERNEL_SCRIPTS"] = str(scripts)
    # The warm parent goes when this process does.
    os.environ.setdefault(RUN_PID, str(os.getpid()))
    folder = str(Path(sys.executable).parent)
    if os.environ.get("PATH", "").split(os.pathsep)[0] != folder:
        os.environ["PATH"] = os.pathsep.join([folder, os.environ.get("PATH", os.defpath)])
