"""The warm parent: a process that has torch, triton and flashinfer_bench imported, and forks for each action.

A start of Python with these imports takes seconds, a fork milliseconds. The parent is started by the first action of a
run, found by the next ones through a socket that only its user can open, and gone when it has been idle, or soon after
its run has ended, however it ended. It never starts CUDA and never imports a candidate. What makes two parents
different (the code, the Python, the environment, the run, the dataset) is in the socket's name, so that no action meets
a parent that is not its own. Where there is none to be had, the same action runs in the caller's own process.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import select
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from snakernel.config import Config
from snakernel.evaluation.environment import clean_environment
from snakernel.evaluation.processes import adopt_orphans, die_with
from snakernel.evaluation.sandbox import remove_shared_memory
from snakernel.files import digest, digest_texts

SCRIPT = Path(__file__).parents[2] / "evaluator.py"
RUN_PID = "SNAKERNEL_RUN_PID"
"""Environment variable: the process whose end is the end of the run."""
START_S = 90.0
MESSAGE_BYTES = 1 << 20


@dataclass(frozen=True)
class Parent:
    """Where a configuration's warm parent is, or would be."""

    socket: Path
    environment: dict[str, str]

    @property
    def token(self) -> Path:
        """A file with what a caller must know; the parent itself, and so every fork of it, knows only its hash."""
        return self.socket.with_suffix(".token")


def parent_of(config: Config, variables: dict[str, str]) -> Parent | None:
    """The parent for a configuration; None where its socket cannot be kept from others."""
    environment = clean_environment(dict(os.environ)) | variables
    identity = digest_texts(
        [
            sys.executable,
            digest(Path(__file__).parents[1]),
            str(config.results.resolve()),
            str(config.dataset.resolve()),
            json.dumps({k: v for k, v in environment.items() if k not in (RUN_PID, "TMPDIR")}, sort_keys=True),
        ]
    )
    folder = Path(tempfile.gettempdir()) / f"snakernel-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700)
    try:
        info = folder.lstat()
    except OSError:
        return None
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o077:
        return None
    path = folder / f"{identity}.sock"
    # A path of a Unix socket has room for 107 bytes.
    return Parent(path, environment) if len(os.fsencode(path)) < 108 else None


def call(
    config: Config, variables: dict[str, str], action: str, arguments: dict[str, str], device: str | None
) -> int | None:
    """Run an action in a fork of the warm parent, which is started where it is not there.

    Args:
        config: the run's configuration.
        variables: environment variables that the backend needs.
        action: a name in :mod:`snakernel.evaluation.actions`.
        arguments: its arguments.
        device: value of CUDA_VISIBLE_DEVICES for the fork.

    Returns:
        The action's exit code; None where there is no parent to be had, and so nothing was done.
    """
    parent = parent_of(config, variables)
    if parent is None:
        return None
    connection = _connect(parent) or _start(parent, config)
    if connection is None:
        return None
    with connection:
        try:
            token = parent.token.read_text()
        except OSError:
            return None  # it is just leaving
        request = {
            "token": token,
            "action": action,
            "arguments": arguments,
            "folder": os.getcwd(),
            "device": device,
        }
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            socket.send_fds(connection, [json.dumps(request).encode() + b"\n"], [1, 2])
            answer = connection.makefile("rb").readline(MESSAGE_BYTES)
        except OSError:
            answer = b""
    # An empty answer: the parent itself is gone. Its forks go with it, so the action can run elsewhere.
    return int(json.loads(answer)["code"]) if answer else None


def _connect(parent: Parent) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.connect(str(parent.socket))
    except OSError:
        connection.close()
        return None
    return connection


def _start(parent: Parent, config: Config) -> socket.socket | None:
    """Start the parent, unless another caller has just done so, and connect to it."""
    with FileLock(parent.socket.with_suffix(".lock")):
        connection = _connect(parent)
        if connection is not None:
            return connection
        parent.socket.unlink(missing_ok=True)
        token = secrets.token_hex(32)
        with open(os.open(parent.token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(token)
        command = [sys.executable, str(SCRIPT), "--socket", str(parent.socket)]
        command += ["--token-sha256", hashlib.sha256(token.encode()).hexdigest(), "--idle-s", str(config.warm_idle_s)]
        if os.environ.get(RUN_PID):
            command += ["--run-pid", os.environ[RUN_PID]]
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
            connection = _connect(parent)
            if connection is not None:
                return connection
            time.sleep(0.02)
        process.kill()
        return None


@dataclass
class _Job:
    """A fork that carries out an action, and the caller who waits for it."""

    pid: int
    pidfd: int
    connection: socket.socket
    scratch: str
    """Its folder for temporary files: removed with it, also where it was killed."""


@dataclass
class Server:
    """The parent's own side: it accepts callers, forks, and ends what nobody waits for."""

    path: Path
    token_sha256: str
    idle_s: float
    run_pid: int | None = None
    _jobs: dict[int, _Job] = field(default_factory=dict)
    """By the descriptor of the caller's connection."""

    def serve(self) -> None:
        """Serve until idle for too long, or until the run has ended."""
        # What a candidate's child leaves behind when its judge was killed becomes a child of this process.
        adopt_orphans()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(str(self.path))
        os.chmod(self.path, 0o600)
        listener.listen(64)
        poller = select.poll()
        poller.register(listener, select.POLLIN)
        run = None
        if self.run_pid is not None:
            try:
                run = os.pidfd_open(self.run_pid)
                poller.register(run, select.POLLIN)
            except OSError:
                return
        ended = False
        pidfds: dict[int, int] = {}
        while not (ended and not self._jobs):
            events = poller.poll(None if self._jobs else self.idle_s * 1e3)
            if not events:
                break
            for descriptor, _ in events:
                if descriptor == listener.fileno():
                    connection, _ = listener.accept()
                    job = self._begin(connection, listener, ended)
                    if job is not None:
                        self._jobs[connection.fileno()] = job
                        pidfds[job.pidfd] = connection.fileno()
                        poller.register(connection, select.POLLIN)
                        poller.register(job.pidfd, select.POLLIN)
                elif descriptor == run:
                    ended = True
                    poller.unregister(run)
                elif descriptor in pidfds:
                    job = self._jobs.pop(pidfds.pop(descriptor))
                    poller.unregister(job.pidfd)
                    with contextlib.suppress(KeyError):
                        poller.unregister(job.connection)
                    self._end(job)
                elif descriptor in self._jobs:
                    # The caller is gone, or says what callers never say: nobody waits for this fork.
                    poller.unregister(descriptor)
                    self._kill(self._jobs[descriptor].pid)
        for suffix in (".token", ".log", ".sock"):
            self.path.with_suffix(suffix).unlink(missing_ok=True)

    def _begin(self, connection: socket.socket, listener: socket.socket, ended: bool) -> _Job | None:
        """Read a request and fork for it; None where the caller is none of ours."""
        connection.settimeout(5)
        descriptors: list[int] = []
        try:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            caller, user, _ = struct.unpack("3i", credentials)
            # A candidate is a descendant of this process, and remains one: whatever it knows, it is not served.
            if user != os.getuid() or ended or self._is_ours(caller):
                raise ValueError("not ours")
            message, descriptors, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 2)
            while not message.endswith(b"\n"):
                more = connection.recv(MESSAGE_BYTES)
                if not more or len(message) > MESSAGE_BYTES:
                    raise ValueError("no whole request")
                message += more
            request = json.loads(message)
            told = hashlib.sha256(str(request["token"]).encode()).hexdigest()
            if not hmac.compare_digest(told, self.token_sha256) or len(descriptors) != 2:
                raise ValueError("not ours")
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            for descriptor in descriptors:
                os.close(descriptor)
            connection.close()
            return None
        connection.settimeout(None)
        scratch = tempfile.mkdtemp(prefix="snakernel-")
        pid = os.fork()
        if pid == 0:
            tempfile.tempdir = scratch
            _carry_out(request, descriptors, [listener, connection, *(job.connection for job in self._jobs.values())])
        for descriptor in descriptors:
            os.close(descriptor)
        return _Job(pid, os.pidfd_open(pid), connection, scratch)

    def _end(self, job: _Job) -> None:
        """Tell the caller how its fork ended, and kill what is left of it."""
        _, status = os.waitpid(job.pid, 0)
        os.close(job.pidfd)
        with contextlib.suppress(OSError):
            job.connection.sendall(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")
        job.connection.close()
        import psutil

        known = {other.pid for other in self._jobs.values()}
        for orphan in psutil.Process().children():
            if orphan.pid not in known:
                self._kill(orphan.pid)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(orphan.pid, 0)
        shutil.rmtree(job.scratch, ignore_errors=True)
        remove_shared_memory(job.pid)

    @staticmethod
    def _is_ours(pid: int) -> bool:
        """Whether a process descends from this one, or is gone, so that nobody can tell."""
        import psutil

        try:
            return any(one.pid == os.getpid() for one in psutil.Process(pid).parents())
        except psutil.Error:
            return True

    @staticmethod
    def _kill(pid: int) -> None:
        """Kill a process and its descendants."""
        import psutil

        try:
            processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        except psutil.Error:
            return
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()


def _carry_out(request: dict[str, Any], descriptors: list[int], sockets: list[socket.socket]) -> None:
    """In the fork: become the caller's process, run the action, and exit with its code."""
    code = 1
    try:
        die_with(os.getppid())
        os.setsid()
        for one in sockets:
            one.close()
        os.dup2(descriptors[0], 1)
        os.dup2(descriptors[1], 2)
        for descriptor in descriptors:
            if descriptor > 2:
                os.close(descriptor)
        os.chdir(request["folder"])
        if request["device"] is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = request["device"]
        from snakernel.errors import run_main
        from snakernel.evaluation.actions import ACTIONS

        try:
            run_main(lambda: ACTIONS[request["action"]](**request["arguments"]))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
