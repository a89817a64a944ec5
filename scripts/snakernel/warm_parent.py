"""A warm parent's own side: it accepts callers, forks for each, and ends what nobody waits for.

Where it has nothing to do, it forks one process ahead, a standby, for another request like the last two.

It serves neither what descends from it nor a process that is confined as a candidate is, whatever that knows.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import os
import secrets
import select
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakernel.errors import run_main
from snakernel.files import build_models, scratch_folder
from snakernel.processes import adopt_orphans, die_with
from snakernel.warm import MESSAGE_BYTES, remove_files

Request = dict[str, Any]
CarryOut = Callable[[Request], int | None]
Wait = Callable[[Callable[[], None]], Request]
"""Waits for a request; what it is given is called when the parent can know that it waits."""
StandBy = Callable[[Request, Wait], int | None]
REST_S = 0.1
"""Seconds without a request after which there is time for a standby: who waits for the device comes first."""
READY = b"ready"


@dataclass
class _Job:
    """A fork that carries out a request, and the caller who waits for it."""

    pid: int
    pidfd: int
    connection: socket.socket
    scratch: contextlib.ExitStack
    """Has its folder for temporary files, if it has one: removed with it, also where it was killed."""
    answered: int
    """Descriptor of an event: the caller has its answer."""

    def has_answered(self) -> bool:
        """Whether the fork does no more than what follows its answer, so that its caller may go."""
        try:
            return os.eventfd_read(self.answered) > 0
        except BlockingIOError:
            return False


@dataclass
class _Standby:
    """A fork that has begun with what it was not asked for yet."""

    kind: str
    pid: int
    pidfd: int
    connection: socket.socket
    scratch: contextlib.ExitStack
    answered: int

    def is_ready(self) -> bool:
        """Whether it waits for a request."""
        try:
            return self.connection.recv(len(READY), socket.MSG_DONTWAIT) == READY
        except OSError:
            return False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that a warm parent is started with."""
    parser.add_argument("--socket", type=Path, help="be the warm parent, at this socket")
    parser.add_argument("--token-sha256", help="hash of what callers must know")
    parser.add_argument("--idle-s", type=float, help="seconds without a request after which the parent goes")
    parser.add_argument("--run-pid", type=int, help="the process whose end is the end of the run")


@dataclass
class Server:
    """A warm parent."""

    path: Path
    token_sha256: str
    idle_s: float
    carry_out: CarryOut
    """What a fork does with a request; its result is the exit code."""
    run_pid: int | None = None
    prepare: Callable[[dict[str, Any]], None] | None = None
    """What is done before the fork for a request, so that the forks after it find it done."""
    scratch: bool = False
    """Whether each fork has a folder of its own for temporary files."""
    adopts: bool = False
    """Whether what a fork's children leave behind is found and ended."""
    clean_up: Callable[[int], None] = lambda pid: None
    """Removes what a fork left."""
    kind_of: Callable[[Request], str | None] = lambda request: None
    """What requests have in common that a standby for one of them can carry out; None: there is none for it."""
    afterwards: Callable[[], None] = lambda: None
    """What a fork does when its caller has its answer."""
    stand_by: StandBy | None = None
    """What a standby does: it prepares for a request like the one it is given, asks for it, and carries it out."""
    _jobs: dict[int, _Job] = field(default_factory=dict)
    """By the descriptor of the caller's connection."""
    _standby: _Standby | None = None
    _kind: str | None = None
    """That of the last request."""
    _expected: tuple[str, Request] | None = None
    """The kind of request that may come next and an example, until there was a standby for it."""
    _poller: select.poll = field(default_factory=select.poll)

    @classmethod
    def of(cls, arguments: argparse.Namespace, carry_out: CarryOut, **more: Any) -> Server:
        """The server that the arguments of :func:`add_arguments` ask for."""
        return cls(
            arguments.socket,
            arguments.token_sha256,
            arguments.idle_s,
            carry_out,
            run_pid=arguments.run_pid,
            **more,
        )

    def serve(self) -> None:
        """Serve until idle for too long, or until the run has ended."""
        import psutil  # noqa: F401  (before the first fork)

        build_models()
        gc.collect()
        gc.freeze()  # what is here stays: to look for garbage in it would only copy it into each fork
        if self.adopts:
            # What a fork's children leave behind when it was killed becomes a child of this process.
            adopt_orphans()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(str(self.path))
        os.chmod(self.path, 0o600)
        listener.listen(64)
        poller = self._poller
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
            rests = self._expected is not None and not self._jobs and not ended
            events = poller.poll(None if self._jobs else (min(REST_S, self.idle_s) if rests else self.idle_s) * 1e3)
            if not events and rests:
                self._fork_standby(listener)
                continue
            if not events:
                break
            # A caller last: descriptors that are closed for it are not to be taken for those of the same number.
            for descriptor, _ in sorted(events, key=lambda event: event[0] == listener.fileno()):
                if descriptor == listener.fileno():
                    connection, _ = listener.accept()
                    job = self._begin(connection, listener, ended)
                    if job is not None:
                        self._jobs[connection.fileno()] = job
                        pidfds[job.pidfd] = connection.fileno()
                        poller.register(connection, select.POLLIN)
                        poller.register(job.pidfd, select.POLLIN)
                elif self._standby is not None and descriptor == self._standby.pidfd:
                    self._dismiss()
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
                    if not self._jobs[descriptor].has_answered():
                        self._kill(self._jobs[descriptor].pid)
        self._dismiss()
        remove_files(self.path)

    def _begin(self, connection: socket.socket, listener: socket.socket, ended: bool) -> _Job | None:
        """Read a request and fork for it; None where the caller is none of ours."""
        connection.settimeout(5)
        descriptors: list[int] = []
        try:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            caller, user, _ = struct.unpack("3i", credentials)
            # Whatever a candidate knows, it is not served.
            if user != os.getuid() or ended or self._is_ours(caller) or _is_confined(caller):
                raise ValueError("not ours")
            message, descriptors, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 2)
            while not message.endswith(b"\n"):
                more = connection.recv(MESSAGE_BYTES)
                if not more or len(message) > MESSAGE_BYTES:
                    raise ValueError("no whole request")
                message += more
            request = json.loads(message)
            told = hashlib.sha256(str(request["token"]).encode()).hexdigest()
            if not secrets.compare_digest(told, self.token_sha256) or len(descriptors) != 2:
                raise ValueError("not ours")
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            for descriptor in descriptors:
                os.close(descriptor)
            connection.close()
            return None
        connection.settimeout(None)
        job = self._hand_to_standby(request, descriptors, connection)
        if job is not None:
            return job
        if self.prepare is not None:
            with contextlib.suppress(Exception):  # the fork meets the same fault, and tells its caller
                self.prepare(request)
        others = [job.connection for job in self._jobs.values()]
        pid, scratch, answered = self._fork(request, descriptors, connection, [listener, *others])
        for descriptor in descriptors:
            os.close(descriptor)
        return _Job(pid, os.pidfd_open(pid), connection, scratch, answered)

    def _hand_to_standby(self, request: Request, descriptors: list[int], connection: socket.socket) -> _Job | None:
        """Have the standby carry a request out, if there is one that can; it is gone then in any case."""
        kind = None
        with contextlib.suppress(Exception):  # the fork meets the same fault, and tells its caller
            kind = self.kind_of(request)
        # Where the tasks of a run take turns, the next kernel is another one's: a standby would only be in the way.
        self._expected = None if kind is None or kind != self._kind else (kind, request)
        self._kind = kind
        standby = self._standby
        if standby is None:
            return None
        if standby.kind == kind and standby.is_ready():
            with contextlib.suppress(OSError):  # it is gone
                message = json.dumps(request).encode()
                socket.send_fds(standby.connection, [message], [*descriptors, connection.fileno()])
                self._standby = None
                self._poller.unregister(standby.pidfd)
                standby.connection.close()
                for descriptor in descriptors:
                    os.close(descriptor)
                return _Job(standby.pid, standby.pidfd, connection, standby.scratch, standby.answered)
        self._dismiss()
        return None

    def _fork_standby(self, listener: socket.socket) -> None:
        """Fork a standby for the request that may come next; there is one attempt."""
        assert self._expected is not None and self.stand_by is not None
        (kind, request), self._expected = self._expected, None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid, scratch, answered = self._fork(request, [], None, [listener, ours], theirs)
        theirs.close()
        self._standby = _Standby(kind, pid, os.pidfd_open(pid), ours, scratch, answered)
        self._poller.register(self._standby.pidfd, select.POLLIN)

    def _dismiss(self) -> None:
        """End the standby, if there is one, and remove what it left."""
        standby, self._standby = self._standby, None
        if standby is None:
            return
        self._poller.unregister(standby.pidfd)
        self._kill(standby.pid)
        os.waitpid(standby.pid, 0)
        os.close(standby.pidfd)
        os.close(standby.answered)
        standby.connection.close()
        if self.adopts:
            self._end_orphans()
        standby.scratch.close()
        self.clean_up(standby.pid)  # it may have begun to make something when it was killed

    def _end(self, job: _Job) -> None:
        """Tell the caller how its fork ended, where that did not say so itself, and kill what is left of it."""
        _, status = os.waitpid(job.pid, 0)
        os.close(job.pidfd)
        os.close(job.answered)
        _answer(job.connection, os.waitstatus_to_exitcode(status))
        job.connection.close()
        if self.adopts:
            self._end_orphans()
        job.scratch.close()
        self.clean_up(job.pid)

    def _end_orphans(self) -> None:
        import psutil

        known = {other.pid for other in self._jobs.values()}
        for orphan in psutil.Process().children():
            if orphan.pid not in known:
                self._kill(orphan.pid)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(orphan.pid, 0)

    @staticmethod
    def _is_ours(pid: int) -> bool:
        """Whether a process descends from this one, or is gone, so that nobody can tell."""
        import psutil

        try:
            return any(one.pid == os.getpid() for one in psutil.Process(pid).parents())
        except psutil.Error:
            return True

    def _kill(self, pid: int) -> None:
        """Kill a process and its descendants, and remove what they left."""
        import psutil

        try:
            processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        except psutil.Error:
            return
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
            self.clean_up(process.pid)

    def _fork(
        self,
        request: Request,
        descriptors: list[int],
        caller: socket.socket | None,
        others: list[socket.socket],
        standby: socket.socket | None = None,
    ) -> tuple[int, contextlib.ExitStack, int]:
        """Fork for a request; returns the fork, what has its folder for temporary files, and its answer's event."""
        scratch = contextlib.ExitStack()
        answered = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        folder = str(scratch.enter_context(scratch_folder())) if self.scratch else None
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            if folder is not None:
                tempfile.tempdir = folder
            self._live(parent, request, descriptors, caller, others, scratch, answered, standby)
        return pid, scratch, answered

    def _live(
        self,
        parent: int,
        request: Request,
        descriptors: list[int],
        caller: socket.socket | None,
        others: list[socket.socket],
        scratch: contextlib.ExitStack,
        answered: int,
        standby: socket.socket | None,
    ) -> None:
        """In the fork: become the caller's process, carry the request out, and exit with its code.

        A standby has no caller yet: it gets one, with a request like this one, through its socket.
        """
        code = 1

        def wait(ready: Callable[[], None]) -> Request:
            nonlocal caller
            assert standby is not None
            standby.send(READY)
            ready()
            message, passed, _, _ = socket.recv_fds(standby, MESSAGE_BYTES, 3)
            if not message:
                raise SystemExit(1)
            caller = socket.socket(fileno=passed.pop())
            _take_output(passed)
            return json.loads(message)

        try:
            die_with(parent)
            os.setsid()
            for one in others:
                one.close()
            _take_output(descriptors)
            os.chdir(request["folder"])
            try:
                if standby is None:
                    run_main(lambda: self.carry_out(request))
                elif self.stand_by is not None:
                    run_main(lambda: self.stand_by(request, wait))
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
                scratch.close()  # before the answer: where the parent is killed then, nobody comes who would
            # The caller need not wait while the system takes this process down, which takes CUDA's a while.
            if caller is not None:
                os.eventfd_write(answered, 1)
                _answer(caller, code)
            with contextlib.suppress(Exception):  # of what is left the parent gets rid
                self.afterwards()
            os._exit(code)


def _take_output(descriptors: list[int]) -> None:
    """Make two descriptors this process's output and error output; without any, these stay as they are."""
    for number, descriptor in enumerate(descriptors, 1):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        if descriptor > 2:
            os.close(descriptor)


def _answer(caller: socket.socket, code: int) -> None:
    with contextlib.suppress(OSError):  # it is gone, or has its answer
        caller.sendall(json.dumps({"code": code}).encode() + b"\n")


def _is_confined(pid: int) -> bool:
    """Whether a process has given up new privileges, as each candidate has and none of ours, unless this one has too.

    Nothing takes that back, and children inherit it.
    """
    try:
        mark = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NoNewPrivs")]
        own = Path("/proc/self/status").read_text()
    except OSError:
        return True
    return "NoNewPrivs:\t1" in mark and "NoNewPrivs:\t0" in own
