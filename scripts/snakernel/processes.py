"""What processes tell each other, and ask of the kernel of the operating system about each other."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
KILLED_CODE = 75
"""Exit code of an evaluator's action whose kernel was killed: by itself, or by what has nothing to do with it."""


def die_with(parent: int, by: int = signal.SIGKILL) -> None:
    """Have the kernel end this process when its parent ends, however that is; at once where it has already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of what descendants leave behind, so that it can be found and ended."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def memory_bytes(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Host memory that this process may use: the machine's, or what a control group (a SLURM job, a container) allows.

    Args:
        groups: this process's control groups, as the kernel of the operating system lists them (cgroups(7)).
        root: where the control groups are, of version 1 or 2.
    """
    import psutil

    bounds = [psutil.virtual_memory().total]
    with contextlib.suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                top, name = root, "memory.max"
            elif "memory" in controllers.split(","):
                top, name = root / "memory", "memory.limit_in_bytes"
            else:
                continue
            own = Path(os.path.normpath(top / path.lstrip("/")))
            for folder in (own, *own.parents):  # each group is bound by those above it
                if not folder.is_relative_to(top):
                    break
                with contextlib.suppress(OSError, ValueError):  # no bound: "max", or no such file
                    bounds.append(int((folder / name).read_text()))
    return min(bounds)
