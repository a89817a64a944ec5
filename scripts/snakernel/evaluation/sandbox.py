"""What the kernel of the operating system keeps from a candidate: files, network, signals, other processes' memory.

Landlock does it without privileges; where the kernel has none, the verdict says so and the rest still holds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import landlockpy
from landlockpy import AccessFS, Scope

if TYPE_CHECKING:
    from flashinfer_bench.data import Workload

_READ = AccessFS.READ_FILE | AccessFS.READ_DIR | AccessFS.EXECUTE
_DEVICE = AccessFS.READ_FILE | AccessFS.WRITE_FILE | AccessFS.READ_DIR | AccessFS.IOCTL_DEV
_SHARED = _READ | AccessFS.WRITE_FILE | AccessFS.TRUNCATE | AccessFS.MAKE_REG | AccessFS.REMOVE_FILE
_ALL = ~AccessFS.NONE
_DEVICES = ("null", "zero", "full", "random", "urandom", "nvidia*", "dri")
_ETC = (
    "alternatives",
    "group",
    "ld.so.*",
    "localtime",
    "nsswitch.conf",
    "nvidia*",
    "os-release",
    "passwd",
    "timezone",
)
_NEVER_WHOLE = {
    "__modal",
    "dev",
    "etc",
    "home",
    "lost+found",
    "media",
    "mnt",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "tmp",
    "var",
}
"""Folders of / that are not readable as a whole: they hold what belongs to users (a Modal container's __modal: its
Volumes), or have rules of their own."""
CLONE_NEWNET = 0x40000000
PR_SET_NO_NEW_PRIVS = 38
NOBODY = 65534


@dataclass(frozen=True)
class Sandbox:
    """What a candidate may touch. Made by the judge, entered by the candidate's process before anything else."""

    scratch: Path
    """The only folder that it may write to."""
    readable: list[Path] = field(default_factory=list)
    """Folders that it may read and run programs from."""
    devices: list[Path] = field(default_factory=list)
    """Device files and folders that it may use."""
    abi: int = 0
    """Version of Landlock in this kernel; 0 is none."""
    no_network: bool = False
    """It gets a network of its own, with nothing in it; otherwise Landlock's refusal of TCP must do."""

    @classmethod
    def plan(cls, scratch: Path, blobs: list[Path], hidden: list[Path]) -> Sandbox:
        """What this machine allows.

        Args:
            scratch: the candidate's own folder.
            blobs: folders that hold inputs; nothing else of the dataset is to be seen, least of all its solutions.
            hidden: folders that it must not see, whatever they lie in.
        """
        hidden = [path.resolve() for path in hidden]
        with contextlib.suppress(KeyError):  # a user without an entry, as in containers
            hidden.append(Path(pwd.getpwuid(os.getuid()).pw_dir).resolve())
        whole = [
            path
            for path in Path("/").iterdir()
            if path.name not in _NEVER_WHOLE and not any(one.is_relative_to(path.resolve()) for one in hidden)
        ]
        named = [sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), *filter(os.path.isabs, sys.path)]
        for variable in ("LD_LIBRARY_PATH", "CPATH", "CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX"):
            named += filter(os.path.isabs, os.environ.get(variable, "").split(os.pathsep))
        package = Path(__file__).parents[1]
        etc = [path for name in _ETC for path in Path("/etc").glob(name)]
        # Rules only add: a folder that holds a hidden one is not readable as a whole, whoever named it.
        sound = [path for path in map(Path, named) if not any(one.is_relative_to(path.resolve()) for one in hidden)]
        readable = [*whole, *sound, package, *blobs, *etc, Path("/proc"), Path("/sys")]
        return cls(
            scratch=scratch,
            readable=sorted({path for path in readable if os.path.exists(path)}),
            devices=[path for name in _DEVICES for path in Path("/dev").glob(name)],
            abi=landlockpy.abi_version(),
            no_network=os.geteuid() == 0 and _may_unshare(),
        )

    def enter(self, *, profiler: bool = False) -> None:
        """Confine this process and its children, for good.

        Args:
            profiler: this process will start the one that a kernel runs in, which then calls :meth:`enter_profiled`.
                It may write to all of /proc that its user may, so where that user is root it becomes nobody.

        Raises:
            OSError: the kernel refused what :meth:`plan` counted on.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        if self.no_network and libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # or a program that root starts would have them all again
        if profiler and os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        _drop_capabilities(libc)
        proc = Path("/proc") if profiler else Path(f"/proc/{os.getpid()}")
        self._restrict(Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL, proc)

    def enter_profiled(self) -> None:
        """Confine a process that a profiler started in its own confinement; it stays able to talk to the profiler."""
        self._restrict(Scope.SIGNAL, Path(f"/proc/{os.getpid()}"))

    def _restrict(self, scoped: Scope, proc: Path) -> None:
        if not self.abi:
            return
        with landlockpy.Ruleset(scoped=scoped) as rules:
            for path in self.readable:
                rules.allow_path(path, _READ if path.is_dir() else AccessFS.READ_FILE)
            for path in self.devices:
                rules.allow_path(path, _DEVICE if path.is_dir() else _DEVICE & ~AccessFS.READ_DIR)
            if Path("/dev/shm").is_dir():
                rules.allow_path("/dev/shm", _SHARED)
            # CUDA names its threads there when it starts, and fails where it may not.
            rules.allow_path(proc, _READ | AccessFS.WRITE_FILE | AccessFS.TRUNCATE)
            rules.allow_path(self.scratch, _ALL)
            rules.restrict()

    def describe(self) -> list[str]:
        """What is in force, for evaluation.json."""
        told = ["process group of its own, resource limits", "environment without keys", "no capabilities"]
        if self.no_network:
            told.append("no network (namespace)")
        if not self.abi:
            return [
                *told,
                "this kernel has no Landlock: files, signals and the memory of other processes are not protected",
            ]
        told.append(f"Landlock ABI {self.abi}: writes to its own folder only, reads no home, no results, no /tmp")
        if self.abi >= 4 and not self.no_network:
            told.append("no TCP (Landlock)")
        if self.abi >= 6:
            told.append("no signals to others (Landlock)")
        return told


def blob_folders(workloads: list[Workload], dataset: Path) -> list[Path]:
    """The folders of the files that inputs of some workloads are read from."""
    files = {
        dataset / spec.path for workload in workloads for spec in workload.inputs.values() if spec.type == "safetensors"
    }
    return sorted({file.resolve().parent for file in files})


def remove_shared_memory(pid: int) -> None:
    """Remove what CUDA and torch leave in /dev/shm for a process that shared memory and has ended, or is about to."""
    for pattern in (f"cuda.shm.*.{pid:x}.*", f"torch_{pid}_*"):
        for path in Path("/dev/shm").glob(pattern):
            with contextlib.suppress(OSError):  # another user's, of a process that had the same number
                path.unlink()


def _may_unshare() -> bool:
    """Whether this process may have a network namespace: tried in a child, which has it to itself."""
    pid = os.fork()
    if pid == 0:
        os._exit(1 if ctypes.CDLL(None).unshare(CLONE_NEWNET) else 0)
    return os.waitpid(pid, 0)[1] == 0


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Give up root's privileges over files, devices and processes of others; nothing changes for another user."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    empty = (ctypes.c_uint32 * 6)()
    if libc.capset(header, empty):
        raise OSError(ctypes.get_errno(), "capset")
