"""Warm parents: processes that have imported what takes seconds, and fork in milliseconds for each request.

A parent is started by the first job of a run that asks it, found by the next ones through a socket that only its user
can open, and gone when it has been idle, or soon after its run has ended, however it ended. What makes two parents
different (the script, the code, the Python, the environment, what the caller adds) is in the socket's name, so that no
request meets a parent that is not its own. Where there is none to be had, the caller does the same in its own process.

There are two: scripts/evaluator.py judges kernels and has no key, scripts/worker.py carries out a run's light jobs,
asks models and has the keys. Here is the callers' side, which imports little; warm_parent.py is the parents' own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from snakernel.files import digest, digest_texts

RUN_PID = "SNAKERNEL_RUN_PID"
"""Environment variable: the process whose end is the end of the run."""
START_S = 90.0
LEFT_BEHIND_S = 3600.0
"""Age in seconds from which files are removed whose parent is gone: one that is just starting has younger ones."""
_SUFFIXES = (".token", ".log", ".lock", ".sock")
MESSAGE_BYTES = 1 << 20
_OF_A_PROCESS = {RUN_PID, "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"}
"""Environment variables that differ between the jobs of one run, or between runs that may share a parent."""


class Parent(NamedTuple):
    """Where a warm parent is, or would be."""

    script: Path
    """What it is started with; it takes the arguments of :func:`snakernel.warm_parent.add_arguments`."""
    socket: Path
    environment: dict[str, str]

    @property
    def token(self) -> Path:
        """A file with what a caller must know; the parent itself, and so every fork of it, knows only its hash."""
        return self.socket.with_suffix(".token")


def parent_of(script: Path, environment: Mapping[str, str], identity: Iterable[str] = ()) -> Parent | None:
    """The parent for a script; None where its socket cannot be kept from others.

    Args:
        script: what it is started with.
        environment: all that its forks find in their environment.
        identity: what else must be the same for two callers that share it.
    """
    named = {name: value for name, value in environment.items() if name not in _OF_A_PROCESS}
    code = digest(Path(__file__).parent, script)
    name = digest_texts([sys.executable, code, str(script), json.dumps(named, sort_keys=True), *identity])
    folder = Path(tempfile.gettempdir()) / f"snakernel-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700)
    try:
        info = folder.lstat()
    except OSError:
        return None
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o077:
        return None
    path = folder / f"{name}.sock"
    # A path of a Unix socket has room for 107 bytes.
    return Parent(script, path, dict(environment)) if len(os.fsencode(path)) < 108 else None


def call(parent: Parent, request: Mapping[str, Any], *, start: tuple[str, ...] | None = None) -> int | None:
    """Have a fork of the parent carry a request out, with this process's output and folder, and wait for it.

    Args:
        parent: who is asked.
        request: what the parent's script understands.
        start: arguments with which the parent is started where it is not there; None: it is not started.

    Returns:
        The fork's exit code; None where there is no parent to be had, or it ended meanwhile: then its fork has ended
        too, and nobody carries the request out.
    """
    connection = _connect(parent.socket)
    if connection is None and start is not None:
        with contextlib.suppress(OSError):  # a full /tmp, say
            connection = _start(parent, start)
    if connection is None:
        return None
    with connection:
        try:
            token = parent.token.read_text()
        except OSError:
            return None  # it is just leaving
        message = {**request, "token": token, "folder": os.getcwd()}
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            socket.send_fds(connection, [json.dumps(message).encode() + b"\n"], [1, 2])
            answer = connection.makefile("rb").readline(MESSAGE_BYTES)
        except OSError:
            answer = b""
    # An empty answer: the parent itself is gone, and its forks with it.
    return int(json.loads(answer)["code"]) if answer else None


def _connect(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    return connection


def _is_served(path: Path) -> bool:
    """Whether a parent listens there; it takes the connection for that of a caller who is killed at once."""
    connection = _connect(path)
    if connection is not None:
        connection.close()
    return connection is not None


def remove_files(path: Path) -> None:
    """Remove the files of a parent that is gone or is going, the socket last."""
    for suffix in _SUFFIXES:
        path.with_suffix(suffix).unlink(missing_ok=True)


def _remove_left_behind(own: Path) -> None:
    """Remove the files of other parents that were killed."""
    newest: dict[Path, float] = {}
    for path in own.parent.iterdir():
        if path.suffix in _SUFFIXES and path.stem != own.stem:
            with contextlib.suppress(OSError):  # another caller was first
                where = path.with_suffix(".sock")
                newest[where] = max(newest.get(where, 0.0), path.stat().st_mtime)
    for where, when in newest.items():
        if time.time() - when > LEFT_BEHIND_S and not _is_served(where):
            with contextlib.suppress(OSError):  # what is none of ours is no reason to start nothing
                remove_files(where)


def _start(parent: Parent, arguments: tuple[str, ...]) -> socket.socket | None:
    """Start the parent, unless another caller has just done so, and connect to it."""
    import secrets  # here: most callers find their parent
    import subprocess

    from filelock import FileLock

    run = os.environ.get(RUN_PID)
    if run and not Path(f"/proc/{run}").exists():  # on another machine, or over
        return None
    with FileLock(parent.socket.with_suffix(".lock")):
        connection = _connect(parent.socket)
        if connection is not None:
            return connection
        _remove_left_behind(parent.socket)
        parent.socket.unlink(missing_ok=True)
        token = secrets.token_hex(32)
        with open(os.open(parent.token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(token)
        command = [sys.executable, str(parent.script), *arguments, "--socket", str(parent.socket)]
        command += ["--token-sha256", hashlib.sha256(token.encode()).hexdigest()]
        if run:
            command += ["--run-pid", run]
        with parent.socket.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env=parent.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        deadline = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < deadline:
            connection = _connect(parent.socket)
            if connection is not None:
                return connection
            time.sleep(0.02)
        process.kill()
        return None
