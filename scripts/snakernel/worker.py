"""Where light jobs run: in a fork of the run's worker (scripts/worker.py), which has imported what they need.

Only the standard library is imported here: importing the rest is what a job is to be spared.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from snakernel import warm
from snakernel.files import digest

WORKER = Path(__file__).parents[1] / "worker.py"
SCRIPTS = ("propose", "evaluate", "select_best")
"""The scripts whose jobs it carries out."""
_THREADS = "_THREADS"
"""How the variables end in which Snakemake says how many threads a job may use: they differ within a run."""

is_fork = False
"""Whether this process is a fork of the worker's."""


def parent_of(config: Path, environment: dict[str, str], run: str) -> warm.Parent | None:
    """The worker of a run: the next run has one of its own, since this one's goes with it.

    Args:
        config: the run's resolved configuration.
        environment: what its jobs find in their environment, keys included.
        run: the process whose end is the end of the run, as in ``warm.RUN_PID``.
    """
    named = {name: value for name, value in environment.items() if not name.endswith(_THREADS)}
    code = digest(*(WORKER.with_name(f"{script}.py") for script in SCRIPTS))
    return warm.parent_of(WORKER, named, (run, str(config.resolve()), code))


def run_in_worker(config: Path, *, start: bool = True) -> int | None:
    """Have the worker carry this very command out, and wait for it.

    Args:
        config: the run's resolved configuration: with ``warm: false`` no worker is started.
        start: start the worker where there is none yet.

    Returns:
        The exit code; None where this process is to carry it out: it is the worker's fork, it is no job of a run, so
        that nothing may stay behind that has the keys, or there is no worker to be had.
    """
    run = os.environ.get(warm.RUN_PID)
    if is_fork or run is None:
        return None
    parent = parent_of(config, dict(os.environ), run)
    if parent is None:
        return None
    script = Path(sys.argv[0]).stem
    threads = {name: value for name, value in os.environ.items() if name.endswith(_THREADS)}
    request = {"script": script, "arguments": sys.argv[1:], "config": str(config.resolve()), "threads": threads}
    code = warm.call(parent, request)
    if code is None and start:
        from snakernel.config import read_config

        settings = read_config(config)
        if settings.warm:
            code = warm.call(parent, request, start=("--idle-s", str(settings.warm_idle_s)))
    return code
