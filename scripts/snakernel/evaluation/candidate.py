"""The candidate's process: it runs code that a model wrote, so nothing that it says is trusted.

It is forked from the judge before the judge holds anything worth stealing, in a session of its own, with resource
limits and an environment that has no keys. It gets pickled commands (the judge is trusted) and answers with JSON and
raw bytes in a shared buffer (it is not): the judge never unpickles what it says.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import multiprocessing
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakernel.evaluation import inputs as drawing
from snakernel.evaluation import timing
from snakernel.evaluation.compiler import give_built, variants_first, watch_compiler
from snakernel.evaluation.originals import Originals, Watchers, forget_modules, names_used
from snakernel.evaluation.sandbox import Sandbox, remove_shared_memory
from snakernel.evaluation.timing import Timer
from snakernel.processes import adopt_orphans, die_with, memory_bytes

if TYPE_CHECKING:
    import torch
    from flashinfer_bench.data import Definition, Solution, Workload

LOG_BYTES = 16 * 1024
"""How much of the head, and as much of the tail, of what a candidate prints is kept."""
FULL_PIPE_READS = 16
"""So many reads of 64 KB empty a pipe, which has room for 1 MB at most."""
ERROR_CHARS = 8_000
WATCH_S = 0.25
"""How often a candidate that is waited for is looked at."""
MAX_PROCESSES = 256
MAX_KERNELS = 16
AHEAD_SHARE = 0.03
"""Of the device's memory, for the inputs of a process that compiles ahead; it leaves out a workload that needs more."""
DRAW_SLOTS, TIMED_SLOTS = 3, 2
"""Outputs of one call each in the shared buffer: of calls on draws, which may be this many ahead of the judge, and of
timed calls that are compared."""
MESSAGE_BYTES = 4 * 1024 * 1024
CACHES = ("FIB_CACHE_PATH", "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR")
"""Environment variables that name folders of what was built: the processes of one kernel share them."""
OWN_FOLDERS = ("TMPDIR", "HOME")
"""Those of folders that each process has to itself."""
USED = names_used(sys.modules[__name__], drawing, timing)
"""The names in the code around a kernel's calls."""
LIMITS = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 4 * 2**30, resource.RLIMIT_NOFILE: 4096}


_RUNNING: set[int] = set()
"""The candidates' processes of this one: any other child of it is one that a candidate left behind."""


class CandidateError(Exception):
    """What the kernel raised, as text."""


KILLED = "the kernel's process was ended by signal SIGKILL"
"""What is said of a process that somebody killed: the machine that had no memory left, a person, or itself."""


class CandidateDied(Exception):
    """The candidate's process is gone, or said what is no answer."""


class CandidateTimeout(CandidateDied):
    """The candidate did not answer in time, and was killed."""


@dataclass
class Allowance:
    """Seconds that a candidate's process may still take; what the judge computes meanwhile is not counted."""

    seconds: float


class Candidate:
    """The judge's end of a candidate's process.

    The process is forked by the constructor, so CUDA must not have been started in this process before.
    """

    def __init__(
        self,
        definition: Definition,
        workloads: list[Workload],
        *,
        kind: str,
        dataset: Path,
        sandbox: Sandbox,
        memory_limit_gb: float | None = None,
    ):
        """Fork. The kernel comes later, with the command ``build``.

        Args:
            definition: what the kernel computes.
            workloads: those it may be asked to run; it draws their inputs itself.
            kind: cuda or cpu.
            dataset: where the workloads' blobs are.
            sandbox: what it may touch.
            memory_limit_gb: host memory that it and its children may take, in GB; by default half of what this process
                may use.
        """
        self.kind = kind
        self.helpers: set[int] = set()
        """Further processes of the same kernel; what they take of the machine counts too."""
        self._memory = memory_limit_gb * 1e9 if memory_limit_gb else memory_bytes() / 2
        self.buffer_bytes = max(drawing.output_bytes(definition, one) for one in workloads)
        # Anonymous shared memory: there before the fork, without a name, gone with both processes.
        self._shared = mmap.mmap(-1, max(self.buffer_bytes, 1) * (DRAW_SLOTS + TIMED_SLOTS)) if kind == "cpu" else None
        self._buffer: torch.Tensor | None = None
        ours, theirs = socket.socketpair()
        log_out, log_in = os.pipe()
        adopt_orphans()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _confine(theirs.fileno(), log_in, parent, sandbox)
                connection = Connection(theirs.detach())
                connection.send_bytes(b"{}")
                _serve(connection, definition, workloads, kind, dataset, self._shared, self.buffer_bytes)
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(1)
        _RUNNING.add(self.pid)
        theirs.close()
        os.close(log_in)
        self._connection = Connection(ours.detach())
        os.set_blocking(self._connection.fileno(), False)
        self._pidfd = os.pidfd_open(self.pid)
        self._exit: str | None = None
        self._log = _Log(log_out)
        # It inherited this process's key for multiprocessing's own servers: it shall open none of them.
        multiprocessing.current_process().authkey = os.urandom(32)
        try:
            self._receive(time.monotonic() + 60)
        except (CandidateDied, EOFError, OSError):
            told = self._end().args[0]
            if told == KILLED:
                return  # as it can be at any moment: the next command says so
            # No kernel was near yet: this is a fault of ours or of the machine, and no verdict.
            self.close()
            log = self.printed().strip()[-2000:]
            raise RuntimeError(f"the candidate's process could not be set up ({told}): {log}") from None

    def make_buffer(self) -> None:
        """Make the buffer that outputs come back in; on CUDA this starts CUDA in this process."""
        import torch

        if self._shared is not None:
            self._buffer = torch.frombuffer(self._shared, dtype=torch.uint8)
            return
        # 32 MB or more is a block of its own in torch's allocator: the candidate gets no other tensor's memory with it.
        size = max(self.buffer_bytes * (DRAW_SLOTS + TIMED_SLOTS), 32 * 2**20)
        self._buffer = torch.empty(size, dtype=torch.uint8, device="cuda")

    def share_buffer(self) -> None:
        """Give the candidate's process the buffer, if it has not inherited it."""
        if self._shared is not None:
            return
        import torch.multiprocessing  # noqa: F401  (teaches ForkingPickler to share CUDA memory)

        self.request("buffer", bytes(ForkingPickler.dumps(self._buffer)), allowance=Allowance(60))

    def request(self, command: str, *arguments: Any, allowance: Allowance) -> dict[str, Any]:
        """Send a command and wait for its answer: :meth:`begin` and :meth:`finish`."""
        self.begin(command, *arguments, allowance=allowance)
        return self.finish(allowance)

    def begin(self, command: str, *arguments: Any, allowance: Allowance) -> None:
        """Send a command; its answer is read by :meth:`finish`. A few may be sent ahead: they are answered in turn.

        Raises:
            CandidateTimeout: it takes nothing in; the process group has been killed.
            CandidateDied: the process ended.
        """
        if self._exit is not None:
            raise CandidateDied(self._exit)
        begun = time.monotonic()
        try:
            self._send((command, *arguments), begun + allowance.seconds)
        except (EOFError, OSError):
            raise self._end() from None
        finally:
            allowance.seconds -= time.monotonic() - begun

    def has_answered(self, seconds: float = 0.0) -> bool:
        """Whether :meth:`finish` need not wait, some seconds from now at the latest: there is an answer, or the process
        is gone."""
        if self._exit is not None:
            return True
        poller = select.poll()
        for descriptor in (self._connection.fileno(), self._pidfd):
            poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(seconds * 1e3))

    def finish(self, allowance: Allowance) -> dict[str, Any]:
        """Wait for the answer to the first command that has none; the time that takes goes off the allowance.

        Raises:
            CandidateError: the kernel raised; the text is its traceback.
            CandidateTimeout: no answer in time; the process group has been killed.
            CandidateDied: the process ended, or its answer is none; likewise killed.
        """
        if self._exit is not None:
            raise CandidateDied(self._exit)
        begun = time.monotonic()
        try:
            answer = self._receive(begun + allowance.seconds)
        except (EOFError, OSError):
            raise self._end() from None
        finally:
            allowance.seconds -= time.monotonic() - begun
        if "error" in answer:
            raise CandidateError(writable(str(answer["error"])[:ERROR_CHARS]))
        return answer

    def outputs(self, answer: dict[str, Any], slot: int = 0) -> Any:
        """The outputs that an answer tells of, as tensors of this process: copies, so that they stay as they are.

        An output that does not fit the buffer has a wrong shape or dtype: it comes with these, and without its values.
        """
        import torch

        assert self._buffer is not None
        found: list[Any] = []
        try:
            for one in answer["outputs"]:
                if "scalar" in one:
                    if not isinstance(one["scalar"], (bool, int, float)):
                        raise ValueError("scalar")
                    found.append(one["scalar"])
                    continue
                dtype, shape = getattr(torch, one["dtype"]), [int(size) for size in one["shape"]]
                if not isinstance(dtype, torch.dtype):
                    raise ValueError(one["dtype"])
                offset = one["offset"]
                size = torch.Size(shape).numel() * dtype.itemsize
                if offset is None:
                    if size <= self.buffer_bytes:
                        raise ValueError("an output that fits was kept back")
                    found.append(torch.empty((), dtype=dtype, device=self._buffer.device).expand(shape))
                    continue
                if not 0 <= offset <= self.buffer_bytes - size:
                    raise ValueError(offset)
                offset += slot * self.buffer_bytes
                found.append(self._buffer[offset : offset + size].clone().view(dtype).reshape(shape))
            return found if answer["several"] else found[0]
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError):
            raise self.unreadable() from None

    def unreadable(self) -> CandidateDied:
        """End a process whose answers make no sense: whatever it says next would make none either."""
        self.kill()
        self._exit = "the candidate's process gave an answer that cannot be read"
        return CandidateDied(self._exit)

    def end(self) -> None:
        """Have the process and its group end; CUDA takes a while to, and :meth:`close` waits for it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kill the process, its group, and whatever it started and left behind."""
        import psutil

        self.end()
        if self._exit is None:
            self._exit = self._reap()
        _RUNNING.discard(self.pid)
        # What the candidate started has this process as its new parent (subreaper); one may fork while others die.
        for _ in range(50):
            if not _has_children():
                break
            orphans = [one for one in psutil.Process().children() if one.pid not in _RUNNING]
            if not orphans:
                break
            for orphan in orphans:
                with contextlib.suppress(psutil.Error):
                    for one in [*orphan.children(recursive=True), orphan]:
                        one.kill()
            psutil.wait_procs(orphans, 1)

    def printed(self) -> str:
        """What the process has printed: the head and the tail of it."""
        return self._log.text()

    def close(self) -> None:
        """End the process, and whatever it started and left behind."""
        self.kill()
        remove_shared_memory(self.pid)
        self._connection.close()
        os.close(self._pidfd)

    def _send(self, message: Any, deadline: float) -> None:
        """Send a pickled command in Connection's framing, without ever waiting for longer than the deadline."""
        payload = pickle.dumps(message)
        left = memoryview(struct.pack("!i", len(payload)) + payload)
        while left:
            self._wait(select.POLLOUT, deadline)
            with contextlib.suppress(BlockingIOError):
                left = left[os.write(self._connection.fileno(), left) :]

    def _receive(self, deadline: float) -> dict[str, Any]:
        """One answer in Connection's framing; a process that sends half of one is not waited for any longer."""
        (size,) = struct.unpack("!i", self._read(4, deadline))
        if not 0 <= size <= MESSAGE_BYTES:
            raise self.unreadable()
        try:
            answer = json.loads(self._read(size, deadline))
        except (ValueError, RecursionError):
            raise self.unreadable() from None
        if not isinstance(answer, dict):
            raise self.unreadable()
        return answer

    def _read(self, size: int, deadline: float) -> bytes:
        data = b""
        while len(data) < size:
            self._wait(select.POLLIN, deadline)
            try:
                chunk = os.read(self._connection.fileno(), size - len(data))
            except BlockingIOError:
                continue
            if not chunk:
                raise EOFError
            data += chunk
        return data

    def _wait(self, event: int, deadline: float) -> None:
        """Wait until the connection is ready; the process may end, or take too long."""
        poller = select.poll()
        poller.register(self._connection.fileno(), event)
        poller.register(self._pidfd, select.POLLIN)
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            ready = dict(poller.poll(min(left_s, WATCH_S) * 1e3))
            if ready or left_s <= WATCH_S:
                break
            self._watch()
        if not ready:
            self.kill()
            self._exit = "no answer in time"
            raise CandidateTimeout(self._exit)
        if self._connection.fileno() not in ready:
            raise EOFError

    def _watch(self) -> None:
        """Kill a process that takes too much of the machine."""
        import psutil

        family: list[psutil.Process] = []
        for pid in (self.pid, *self.helpers):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                family += [process, *process.children(recursive=True)]
        try:
            taken = sum(one.memory_info().rss for one in family)
            if taken > self._memory:
                # Forks share pages: what each really adds is slower to find out.
                taken = sum(one.memory_full_info().pss for one in family)
        except psutil.Error:
            return
        started = len(family) - 1 - len(self.helpers)
        if started > MAX_PROCESSES:
            fault = f"the kernel started {started} processes, over the limit of {MAX_PROCESSES}"
        elif taken > self._memory:
            fault = f"the kernel's processes take {taken / 1e9:.1f} GB of this machine's memory, over the limit of "
            fault += f"{self._memory / 1e9:.1f} GB"
        else:
            return
        self.kill()
        self._exit = fault
        raise CandidateDied(fault)

    def _end(self) -> CandidateDied:
        # Its end of the connection closes a moment before the process is gone: let it say how it ended.
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        poller.poll(500)
        self.kill()
        return CandidateDied(self._exit)

    def _reap(self) -> str:
        """Wait for the end of the process and say what it was."""
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            name = signal.Signals(number).name if number in signal.Signals.__members__.values() else str(number)
            return f"the kernel's process was ended by signal {name}"
        return f"the kernel's process exited with code {os.WEXITSTATUS(status)}"


def _has_children() -> bool:
    """Whether this process has any: asked of the system, since a look through all processes takes milliseconds."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


class _Log:
    """What comes out of a pipe: all of it read, the head and the tail of it kept."""

    def __init__(self, pipe: int):
        self._pipe, self._head, self._tail, self._lost, self._ended = pipe, b"", b"", 0, False
        self._lock = threading.Lock()
        os.set_blocking(pipe, False)
        threading.Thread(target=self._drain, daemon=True).start()

    def text(self) -> str:
        """What was written so far."""
        with self._lock:
            for _ in range(FULL_PIPE_READS):  # who is still there may write for ever
                if not self._read():
                    break
        middle = f"\n[... {self._lost} bytes left out ...]\n".encode() if self._lost else b""
        return (self._head + middle + self._tail).decode("utf-8", errors="replace")

    def _drain(self) -> None:
        poller = select.poll()
        poller.register(self._pipe, select.POLLIN)
        while not self._ended:
            poller.poll()
            with self._lock:
                self._read()

    def _read(self) -> bool:
        """Read what is there, once; whether something was. Only under the lock."""
        if self._ended:
            return False
        try:
            chunk = os.read(self._pipe, 65536)
        except BlockingIOError:
            return False
        if not chunk:
            self._ended = True
            os.close(self._pipe)
            return False
        room = LOG_BYTES - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:] if room > 0 else chunk
        self._lost += max(0, len(self._tail) - LOG_BYTES)
        self._tail = self._tail[-LOG_BYTES:]
        return True


def _confine(connection: int, log: int, parent: int, sandbox: Sandbox) -> None:
    """In the child: a session, resource limits, folders and file descriptors of its own."""
    os.setsid()
    die_with(parent)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = sys.stderr = open(1, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
    keep = os.dup2(connection, 3) if connection != 3 else 3
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") < 2**16 else 2**16)
    if connection != 3:
        os.dup2(3, connection)
        os.close(3)
    limit_resources()
    own_folders(sandbox.scratch)
    sandbox.enter()


def limit_resources() -> None:
    """Limit what this process and its children may take of the machine."""
    for limit, value in LIMITS.items():
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def own_folders(scratch: Path) -> None:
    """Give this process its kernel's caches, a home and temporary files of its own, and make its home where it is."""
    own = Path(tempfile.mkdtemp(dir=scratch))
    for name in (*CACHES, *OWN_FOLDERS):
        folder = (scratch if name in CACHES else own) / name.lower()
        os.environ[name] = str(folder)
        if folder.exists():
            continue
        folder.mkdir()
        if name == "TRITON_CACHE_DIR":
            give_built(folder)
    tempfile.tempdir = None  # the parent has looked already, and found its own
    os.chdir(own / "home")


def make_outputs(definition: Definition, arguments: list[Any], kind: str) -> list[torch.Tensor]:
    """Room for the outputs of a kernel that is called in destination-passing style."""
    import torch

    shapes = definition.get_output_shapes(definition.get_axes_values_from_inputs(arguments))
    return [
        torch.empty(shape or (), dtype=dtype, device=drawing.device_name(kind))
        for shape, dtype in zip(shapes, definition.torch_output_dtypes, strict=True)
    ]


def _serve(
    connection: Connection,
    definition: Definition,
    workloads: list[Workload],
    kind: str,
    dataset: Path,
    shared: mmap.mmap | None,
    slot_bytes: int,
) -> None:
    """In the child: answer commands until the judge goes away."""
    import torch

    buffer = torch.frombuffer(shared, dtype=torch.uint8) if shared is not None else None
    runnable: Any = None
    returns = True
    contents: Any = None
    originals: Any = None
    touched = False
    # What is used around the kernel's calls is bound here, before the kernel is imported.
    watching, to_json = Watchers().now, json.JSONEncoder().encode
    drawing.tensor_bytes(torch.empty(1))
    time_calls, hand_over, checksums = Timer(kind).time, _hand_over, drawing.checksums
    poison, make_contents, inference, room = drawing.poison, drawing.Contents, torch.no_grad, make_outputs
    locks = Path(os.environ["TRITON_CACHE_DIR"]) / "locks"
    compiled = watch_compiler(locks, ahead=False) if kind == "cuda" else []
    if kind == "cpu":
        from snakernel.evaluation.stand_in import stand_in_for_cuda

        mode = stand_in_for_cuda()
    else:
        mode = contextlib.nullcontext()
    synchronize = torch.cuda.synchronize

    def rehearse() -> None:
        """Start CUDA, and use once what is used around every kernel's calls: a device loads its functions at first use,
        those that draw numbers for each dtype of its own."""
        values = [torch.zeros(64, dtype=torch.bfloat16, device=drawing.device_name(kind))]
        with contextlib.suppress(Exception):  # a workload too large, or blobs that are gone: its calls tell of it
            values = drawing.draw_inputs(definition, workloads[0], 0, kind, dataset)
        poison(4096, values)
        checksums([value for value in values if isinstance(value, torch.Tensor)])
        _load_builders()

    def slot(number: int) -> torch.Tensor:
        return buffer[number * slot_bytes : (number + 1) * slot_bytes]

    torch_tensor, plain, methods = torch.Tensor, (torch.Tensor, torch.nn.Parameter), frozenset(dir(torch.Tensor))

    def looked_at(result: Any) -> Any:
        """Refuse what would compute when somebody looks at it: another class, or methods of its own."""
        for one in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(one, torch_tensor) and (type(one) not in plain or not methods.isdisjoint(one.__dict__)):
                raise TypeError(f"run returned a {type(one).__name__}, not a plain torch.Tensor")
        return result

    def call(arguments: list[Any]) -> Any:
        nonlocal touched
        outputs = [] if returns else room(definition, arguments, kind)
        touched, before = True, watching()
        result = runnable(*arguments, *outputs)
        if watching() != before:
            raise RuntimeError("run leaves something that watches what is called after it")
        if returns:
            return looked_at(result)
        return outputs if len(outputs) > 1 else outputs[0]

    def build(solution: Solution) -> None:
        """Import the kernel."""
        nonlocal runnable, returns, originals, touched
        from flashinfer_bench.compile import BuilderRegistry

        returns = not solution.spec.destination_passing_style
        registry, before, originals = BuilderRegistry.get_instance(), watching(), Originals(USED)
        forget_modules()
        touched = True
        with mode:
            runnable = registry.build(definition, solution)
        if watching() != before:
            raise RuntimeError("the kernel's import leaves something that watches what is called after it")

    def restore() -> None:
        """Put back what the kernel replaced since it was last done."""
        nonlocal touched
        if touched:
            originals.restore()
        touched = False

    def answer(command: str, *arguments: Any) -> dict[str, Any]:
        nonlocal buffer, contents
        if command == "start":
            if kind == "cuda":
                rehearse()
            return {}
        if command == "start_ahead":
            # flashinfer-bench's builder locks it, and who waits for that looks every 50 ms.
            os.environ["FIB_CACHE_PATH"] = f"{os.environ['HOME']}/fib_cache_path"
            torch.cuda.set_per_process_memory_fraction(AHEAD_SHARE)
            rehearse()
            return {}
        if command == "build":
            build(*arguments)
            return {}
        if command == "compile":
            solution, seed = arguments
            watch_compiler(locks, ahead=True)
            build(solution)
            for workload in variants_first(workloads):
                with contextlib.suppress(Exception), inference():  # nothing is launched, so its values are any
                    call(drawing.draw_inputs(definition, workload, seed, kind, dataset))
            return {}
        if command == "buffer":
            buffer = pickle.loads(arguments[0])
            return {}
        if command in ("run", "call"):
            if contents is not None:
                # The judge needs the device's memory too.
                contents = None
                if kind == "cuda" and torch.cuda.mem_get_info()[0] < torch.cuda.memory_reserved():
                    torch.cuda.empty_cache()
            number = 0
            if command == "call":
                values = unpack_inputs(arguments[0])
            else:
                index, seed, number = arguments
                values = drawing.draw_inputs(definition, workloads[index], seed, kind, dataset)
                poison(drawing.output_bytes(definition, workloads[index]), values)
            tensors = {
                name: value
                for name, value in zip(definition.inputs, values, strict=True)
                if isinstance(value, torch.Tensor)
            }
            before = checksums(list(tensors.values()))
            with inference(), mode:
                result = call(values)
            synchronize()
            restore()
            after = checksums(list(tensors.values()))
            written = [name for name, old, new in zip(tensors, before, after, strict=True) if old != new]
            return {**hand_over(result, slot(number)), "written": written}
        if command == "time":
            index, seed, checks, warmup_runs, iterations, budget_s = arguments
            kept: dict[int, dict[str, Any]] = {}

            def keep(number: int, result: Any) -> None:
                restore()
                kept[number] = hand_over(result, slot(DRAW_SLOTS + number))

            contents = make_contents(definition, workloads[index], seed, kind, dataset, checks=checks, keep=keep)
            with inference(), mode:
                times = time_calls(call, contents, warmup_runs=warmup_runs, iterations=iterations, budget_s=budget_s)
            restore()
            return {**vars(times), "kept": [kept[number] for number in range(len(checks))]}
        if command == "pace":
            (calls,) = arguments
            values = contents.prepare(-1, False)
            with inference(), mode:
                for _ in range(calls):
                    call(values)
            synchronize()
            return {}
        if command == "compiled":
            return {"kernels": _compiled_kernels(compiled)}
        raise ValueError(command)

    while True:
        try:
            command = connection.recv()
        except EOFError:
            os._exit(0)
        try:
            reply = answer(*command)
        except Exception as error:
            text = f"{type(error).__name__}: {error}" if command[0] == "build" else _own_traceback()
            reply = {"error": text[-ERROR_CHARS:]}
        restore()
        connection.send_bytes(to_json(reply).encode())


def writable(text: str) -> str:
    """Text that JSON files can hold: a lone surrogate cannot be encoded."""
    return text.encode("utf-8", "replace").decode("utf-8")


def pack_inputs(values: list[Any]) -> bytes:
    """Inputs that the evaluator made itself, for the candidate's process.

    On the CPU as bytes: torch's way to share CPU tensors opens a server in the judge, to which the candidate would have
    the key.
    """
    import torch
    import torch.multiprocessing  # noqa: F401  (teaches ForkingPickler to share CUDA memory)

    packed = []
    for value in values:
        if isinstance(value, torch.Tensor) and not value.is_cuda:
            data = drawing.tensor_bytes(value).numpy().tobytes()
            packed.append(("cpu", str(value.dtype).removeprefix("torch."), list(value.shape), data))
        else:
            packed.append(("as it is", value))
    return bytes(ForkingPickler.dumps(packed))


def unpack_inputs(packed: bytes) -> list[Any]:
    """The inputs of :func:`pack_inputs`; only ever called on what the judge packed."""
    import torch

    values = []
    for kind, *rest in pickle.loads(packed):
        if kind == "cpu":
            dtype, shape, data = rest
            values.append(
                torch.frombuffer(bytearray(data), dtype=torch.uint8).view(getattr(torch, dtype)).reshape(shape)
            )
        else:
            values.append(rest[0])
    return values


def _load_builders() -> None:
    """Use once what builds a kernel."""
    from flashinfer_bench.compile import BuilderRegistry

    with contextlib.suppress(Exception):  # another Triton: a kernel's first call does it then
        from triton.runtime import driver

        driver.active.get_current_target()
    BuilderRegistry.get_instance()


def _compiled_kernels(functions: list[Any]) -> list[dict[str, Any]]:
    """What the compiled Triton kernels take of the device: told by the candidate's process, and so no evidence."""
    found: dict[str, dict[str, Any]] = {}
    for function in functions:
        for cache in function.device_caches.values():
            for kernel in cache[0].values():
                if getattr(kernel, "n_regs", None) is not None:
                    found[str(kernel.hash)] = {
                        "name": str(kernel.name),
                        "registers": int(kernel.n_regs),
                        "spills": int(kernel.n_spills),
                        "shared_bytes": int(kernel.metadata.shared),
                        "warps": int(kernel.metadata.num_warps),
                        "stages": int(kernel.metadata.num_stages),
                    }
    return list(found.values())[:MAX_KERNELS]


def _hand_over(result: Any, buffer: torch.Tensor) -> dict[str, Any]:
    """Copy outputs into the shared buffer and tell what they are."""
    import torch

    several = isinstance(result, (tuple, list))
    outputs: list[dict[str, Any]] = []
    offset = 0
    for one in result if several else [result]:
        if not isinstance(one, torch.Tensor):
            if not isinstance(one, (bool, int, float)):
                raise TypeError(f"run returned {type(one).__name__}, not a tensor or a tuple of tensors")
            outputs.append({"scalar": one})
            continue
        values = drawing.tensor_bytes(one)
        fits = offset + values.numel() <= buffer.numel()
        if fits:
            buffer[offset : offset + values.numel()].copy_(values)
        outputs.append(
            {
                "dtype": str(one.dtype).removeprefix("torch."),
                "shape": list(one.shape),
                "type": type(one).__qualname__,
                "device": one.device.type,
                "offset": offset if fits else None,
            }
        )
        offset += drawing.align(values.numel())
    if buffer.is_cuda:
        torch.cuda.synchronize()
    return {"several": several, "outputs": outputs}


def _own_traceback() -> str:
    """The current exception, with those frames that are the kernel's own: the others would teach nobody anything."""
    kind, error, frames = sys.exc_info()
    kept = [
        f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}: {frame.line}\n"
        for frame in traceback.extract_tb(frames)
        if "/fib_cache_path/" in frame.filename
    ]
    return "".join([*kept, *traceback.format_exception_only(kind, error)])
