"""Processes that compile variants of a Triton kernel while the one that runs it compiles another.

Triton compiles a kernel anew for other constants, for numbers that are 1 or multiples of 16, and for each configuration
that it tunes among: one after the other, each at the call that needs it. Here further processes of the candidate make
these calls on all workloads at once, without launching anything, and what they compile lies in the cache that all of
them share. Each variant is compiled by one process; who runs the kernel waits for it, if it must.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from flashinfer_bench.data import Solution

from snakernel.evaluation.candidate import Allowance, Candidate, CandidateDied, CandidateError
from snakernel.evaluation.sandbox import remove_shared_memory

PROCESSES = 3
"""Of a kernel with as many variants, none waits for another, also where it is one of these that begins first."""
CORES_EACH = 4
"""Processor cores for each such process: on a machine that has fewer there is none, since it would take what the kernel
needs."""
GRACE_S = 0.1


def processes() -> int:
    """How many processes this machine bears."""
    return max(0, min(PROCESSES, len(os.sched_getaffinity(0)) // CORES_EACH - 1))


class CompileAhead:
    """The judge's end of these processes. What becomes of them is no verdict: all that they can do is save time."""

    def __init__(self, fork: Callable[[], Candidate], count: int):
        """Fork ``count`` processes with the folders of the one that runs the kernel."""
        self._processes = [fork() for _ in range(count)]
        self._begun = self._done = False

    @property
    def pids(self) -> set[int]:
        """The processes."""
        return {one.pid for one in self._processes}

    def start(self) -> None:
        """Begin to start CUDA in them."""
        for one in self._processes:
            self._ask(one, "start_ahead")

    def finish_start(self, seconds: float) -> None:
        """Wait until it has started."""
        for one in self._processes:
            self._wait(one, seconds)

    def begin(self, solution: Solution, seed: int) -> None:
        """Have them compile a kernel, if it is one of Triton's, for inputs that are drawn from a seed."""
        sources = [source.content for source in solution.sources]
        if any("triton.jit" in text for text in sources) and not any("cpp_extension" in text for text in sources):
            self._begun = True
            for one in self._processes:
                self._ask(one, "compile", solution, seed)

    def is_working(self, seconds: float) -> bool:
        """Whether :meth:`finish` would wait for one of them, for so many seconds at most."""
        return self._begun and not self._done and seconds > 0 and not all(one.has_answered() for one in self._processes)

    def finish(self, seconds: float) -> None:
        """Let them finish, for some seconds more at most: from now on they do nothing, since latencies are measured."""
        if self._done:
            return
        self._done = True
        deadline = time.monotonic() + seconds + GRACE_S
        for one in self._processes:
            if self._begun:
                self._wait(one, deadline - time.monotonic())
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGSTOP)

    def end(self) -> None:
        """Have them end; nobody waits for that."""
        for one in self._processes:
            one.end()
            remove_shared_memory(one.pid)

    @staticmethod
    def _ask(process: Candidate, command: str, *arguments: Any) -> None:
        with contextlib.suppress(CandidateDied):
            process.begin(command, *arguments, allowance=Allowance(GRACE_S))

    @staticmethod
    def _wait(process: Candidate, seconds: float) -> None:
        """Wait for an answer; a process that gives none is killed."""
        with contextlib.suppress(CandidateError, CandidateDied):
            process.finish(Allowance(max(0.0, seconds)))
