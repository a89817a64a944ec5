"""Evaluations by the scripts themselves, each in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import yaml
from conftest import REPOSITORY
from snakernel.config import read_config
from snakernel.evaluation.call import parent_of
from snakernel.evaluation.verdict import Evaluation
from snakernel.files import read_model
from snakernel.warm import RUN_PID

SCRIPTS = REPOSITORY / "scripts"
SLEEPER = "import time\n\n\ndef run(hidden_states, weight):\n    time.sleep(100)\n"
KERNEL = next((REPOSITORY / "datasets" / "mini" / "solutions").rglob("rmsnorm_h256_baseline_triton.json"))


CPU = {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
"""The environment variables of the cpu backend."""


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        os.sched_yield()


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended; who adopted it need not have looked yet."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def is_confined(process: psutil.Process) -> bool:
    """Whether it is a candidate's: a judge has other children for moments, and before it a candidate is not itself."""
    try:
        return "NoNewPrivs:\t1" in Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return False


class Bench:
    """A task's folder, and evaluations in it."""

    def __init__(self, folder: Path, run_pid: int | None = None, **keys: object):
        self.folder = folder
        self.config = folder / "config.yaml"
        values = {"dataset_root": str(REPOSITORY / "datasets" / "mini"), "test_source": "mini", "eval_backend": "cpu"}
        values |= {"save_path": str(folder / "results"), "max_workloads": 1, "num_trials": 1, "iterations": 1}
        values |= {"warmup_runs": 0, "warm_idle_s": 60.0, "eval_timeout_s": 200.0}
        self.config.write_text(yaml.safe_dump(values | keys))
        self.task = folder / "rmsnorm_rmsnorm_h256"
        self.environment = {key: value for key, value in os.environ.items() if key != RUN_PID}
        if run_pid is not None:
            self.environment[RUN_PID] = str(run_pid)
        (folder / "kernel.py").write_text(json.loads(KERNEL.read_text())["sources"][0]["content"])
        (folder / "sleeper.py").write_text(SLEEPER)

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end."""
        command = [sys.executable, str(SCRIPTS / script), "--config", str(self.config), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)

    def prepare(self) -> Bench:
        """Check the task and measure its reference."""
        self.run("check_task.py", "--op-type", "rmsnorm", "--definition", "rmsnorm_h256", "--out", str(self.task))
        self.run("measure_reference.py", "--task-folder", str(self.task))
        return self

    def command(self, kernel: str = "kernel.py", out: str = "evaluation.json") -> list[str]:
        """The command that judges a kernel."""
        paths = [
            "--task-folder",
            str(self.task),
            "--kernel",
            str(self.folder / kernel),
            "--out",
            str(self.folder / out),
        ]
        return [sys.executable, str(SCRIPTS / "evaluate.py"), "--config", str(self.config), *paths]

    def judge(self, **arguments: str) -> Evaluation:
        """Judge a kernel."""
        done = subprocess.run(self.command(**arguments), env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return read_model(self.folder / arguments.get("out", "evaluation.json"), Evaluation)

    def start(self, kernel: str) -> subprocess.Popen[bytes]:
        """Begin to judge a kernel, and wait until its process runs."""
        caller = subprocess.Popen(self.command(kernel), env=self.environment, stdout=subprocess.DEVNULL)
        wait_for(lambda: any(is_confined(one) for parent in self.parents() for one in parent.children(recursive=True)))
        return caller

    def parents(self) -> list[psutil.Process]:
        """The warm parents of this configuration: one, or none."""
        config = read_config(self.config)
        name = str(parent_of(config, CPU if config.eval_backend == "cpu" else {}).socket)
        found = []
        for process in psutil.process_iter(["cmdline", "ppid"]):
            line = process.info["cmdline"] or []
            if name in line:
                found.append(process)
        pids = {process.pid for process in found}
        return [process for process in found if process.info["ppid"] not in pids]

    def close(self) -> None:
        """End what is left."""
        for process in self.parents():
            process.kill()
