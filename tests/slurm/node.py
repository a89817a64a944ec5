"""A SLURM cluster of one node, of Debian's packages, with GPUs that are there in name only.

Everything is in a folder of its own, to which /run/slurm/conf points meanwhile: Snakemake's plugin keeps SLURM_CONF
from a job's `srun`, which looks there where there is no /etc/slurm/slurm.conf. To try something by hand:

    python tests/slurm/node.py --gpus 2     # prints the SLURM_CONF to export, and goes on until Ctrl-C
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scancel", "sinfo")
CONFIGURED = Path("/run/slurm/conf")
START_S = 60

CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerParameters=batch_sched_delay=0,sched_interval=1,defer
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=86400
MailProg=/bin/true
GresTypes=gpu
# More processors than the machine has: what bounds the jobs is to be the GPUs.
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=1000000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no cluster here; None where there can."""
    if os.geteuid():
        return "a SLURM node is set up by root"
    if Path("/etc/slurm/slurm.conf").exists() or CONFIGURED.exists():
        return "this machine is part of a SLURM cluster"
    if lacking := [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]:
        return f"not installed: {', '.join(lacking)} (apt-get install slurm-wlm munge)"
    return None


class Node:
    """A running cluster of one node."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}

    def run(self, *command: str) -> str:
        """What a command of SLURM's prints."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """All jobs since the start, by SLURM's own record."""
        fields = ("JobID", "State", "StartTime", "EndTime", "tres-per-job", "Comment")
        lines = self.run("squeue", "-h", "-t", "all", "-O", ",".join(f"{field}:200" for field in fields)).splitlines()
        found = [
            {field: line[200 * number : 200 * (number + 1)].strip() for number, field in enumerate(fields)}
            for line in lines
        ]
        return sorted(found, key=lambda job: int(job["JobID"]))


@contextmanager
def slurm_node(gpus: int) -> Iterator[Node]:
    """Start a cluster whose node has ``gpus`` GPUs, and end all of it, its jobs too.

    Raises:
        RuntimeError: it did not come up; with the daemons' logs.
    """
    with ExitStack() as stack:
        # Not pytest's: the socket's path must be short, and munge wants a folder that everybody may enter.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)
        for name in ("controller", "node", "devices"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        ports = _free_ports()
        values = {"host": host, "folder": folder, "gpus": gpus, "controller_port": ports[0], "node_port": ports[1]}
        (folder / "slurm.conf").write_text(CONFIGURATION.format_map(values))
        files = f"{folder}/devices/nvidia[0-{gpus - 1}]" if gpus > 1 else f"{folder}/devices/nvidia0"
        (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File={files} Flags=nvidia_gpu_env\n")
        # Copies of /dev/null: SLURM numbers devices, and only then sets CUDA_VISIBLE_DEVICES.
        for number in range(gpus):
            os.mknod(folder / "devices" / f"nvidia{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))

        CONFIGURED.parent.mkdir(exist_ok=True)
        CONFIGURED.unlink(missing_ok=True)  # one that points nowhere, of a test that was killed
        CONFIGURED.symlink_to(folder)
        stack.callback(CONFIGURED.unlink)

        node = Node(folder)
        munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        _start(stack, node, "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge)
        wait(node, lambda: (folder / "munge.socket").exists())
        _start(stack, node, "slurmctld", "-D")
        _start(stack, node, "slurmd", "-D", "-N", host)
        wait(node, lambda: node.run("sinfo", "-h", "-o", "%T").strip() == "idle")
        try:
            yield node
        finally:
            subprocess.run(["scancel", "--full", "--user=root"], env={**os.environ, **node.environment}, check=False)
            wait(node, lambda: not node.run("squeue", "-h").strip())


def _path() -> str:
    """Where the daemons are, beside the programs."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def _free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], other.getsockname()[1]]


def _start(stack: ExitStack, node: Node, name: str, *arguments: str) -> None:
    """Start a daemon that ends with the stack."""
    log = stack.enter_context((node.folder / f"{name}.out").open("wb"))
    environment = {**os.environ, **node.environment}
    daemon = subprocess.Popen([shutil.which(name, path=_path()), *arguments], env=environment, stdout=log, stderr=log)

    def end() -> None:
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    stack.callback(end)


def wait(node: Node, ready: Callable[[], object], seconds: float = START_S) -> None:
    """Wait until something is so.

    Raises:
        RuntimeError: it did not come true; with the daemons' logs.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            if ready():
                return
        except (subprocess.SubprocessError, OSError):
            pass  # it does not answer yet
        if time.monotonic() > until:
            logs = "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in sorted(node.folder.glob("*.out")))
            raise RuntimeError(f"SLURM did not do what it was asked within {seconds} s\n{logs}")
        time.sleep(0.2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=1, help="default: %(default)s")
    options = parser.parse_args()
    if why := missing():
        parser.error(why)
    with slurm_node(options.gpus) as cluster:
        print(f"export SLURM_CONF={cluster.environment['SLURM_CONF']}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
