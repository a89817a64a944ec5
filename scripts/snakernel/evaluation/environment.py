"""What a process that runs a candidate may know of its surroundings."""

from __future__ import annotations

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
    """The variables that may stay: those that programs need to be found and to compute, and none that holds a key.

    The evaluator is started with these alone: deleting variables is not enough, since the first environment stays in a
    process's memory, which a candidate that is forked from it could read.
    """
    return {name: value for name, value in environment.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}
