"""What a process that runs a candidate may know of its surroundings."""

from __future__ import annotations

import os
import sys

MARK = "SNAKERNEL_CLEAN"
KEPT = {
    "PATH",
    "LANG",
    "TZ",
    "TERM",
    "TMPDIR",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PYTHONPATH",
    "PYTHONHOME",
    "LD_LIBRARY_PATH",
    "CPATH",
    "CC",
    "CXX",
    "OMP_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "SNAKERNEL_LOCKS",
}
KEPT_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "TRITON_PTXAS", "SLURM_JOB_ID")


def clean_environment(environment: dict[str, str]) -> dict[str, str]:
    """The variables that may stay: those that programs need to be found and to compute, and none that holds a key."""
    return {name: value for name, value in environment.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}


def restart_clean(**variables: str) -> None:
    """Start this script again, as the same process, with a clean environment and ``variables``; returns in the second
    life.

    Deleting variables is not enough: the first environment stays in the process's memory, which a candidate that is
    forked from it could read.
    """
    if os.environ.get(MARK) == str(os.getpid()):
        return
    environment = clean_environment(dict(os.environ)) | variables | {MARK: str(os.getpid())}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
