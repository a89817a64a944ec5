"""What processes tell each other, and ask of the kernel of the operating system about each other."""

from __future__ import annotations

import ctypes
import os
import signal

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
