"""Starts snakemake in a fork of a process that has imported it: a start costs a quarter of what it costs otherwise.

Nothing of the project is imported here: the Snakefile of a checkout imports its own.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["snakemake.cli", "snakemake.api", "snakemake.script", "snakemake.executors.local", "snakemake.report"]
    + ["snakemake.report.html_reporter", "snakemake.storage", "requests", "rich.live", "rich.table", "smart_open"]
    + ["jinja2", "landlockpy", "pydantic", "yaml", "filelock", "faults.starter"]
)


class Run:
    """A snakemake that goes on, with the ways of subprocess.Popen."""

    def __init__(self, folder: Path, arguments: list[str], environment: dict[str, str]):
        self._process: ForkServerProcess = _CONTEXT.Process(target=_run, args=(folder, arguments, environment))
        self._process.start()
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or less than zero: the signal that killed it; None as long as it goes on."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self) -> int:
        """Wait for its end; its exit code."""
        self._process.join()
        return self._process.exitcode

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()


def _run(folder: Path, arguments: list[str], environment: dict[str, str]) -> None:
    """What `python -m snakemake` does, in a session of its own; its output is collected in run.log."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    log = os.open("run.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    sys.argv = ["snakemake", *arguments]
    import snakemake.cli

    try:
        snakemake.cli.main()
    finally:
        atexit._run_exitfuncs()
