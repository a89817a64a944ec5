"""A job of SLURM's that stays: it holds a GPU while the kernels of many steps are judged in it, one job step each.

So a run waits in the queue once, not once a verdict, and the evaluator starts once. The machine that runs the workflow
submits the job when a kernel is to be judged and there is none, finds it by its name, and reaches it with `srun`. The
job ends when nobody came for ``slurm_idle_s`` (however the run ended), or with the run. What was asked of a job that
ended meanwhile (a walltime, a preemption, a cancellation) is asked again, of the next one; what it wrote is not taken.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from snakernel.config import Config, config_yaml, read_config
from snakernel.errors import UserError
from snakernel.evaluation import call as here
from snakernel.evaluation.environment import clean_environment
from snakernel.files import digest, digest_texts, read_text, write_json, write_text
from snakernel.processes import die_with
from snakernel.warm import RUN_PID

SCRIPT = Path(__file__).parents[2] / "slurm_job.py"
PROGRAMS = ("sbatch", "squeue", "srun", "scancel")
ENDED, FAILED = 98, 99
"""Exit codes of a job step: the job is at its end and did nothing; the action failed. Others are SLURM's."""
ATTEMPTS = 3
"""How many jobs may end in the middle of one action."""
ANSWERS_S = 300.0
"""How long SLURM's controller may fail to answer; and how long a job may take to be ready."""
VISIBLE_S = 90.0
"""How long a shared file system may take to show on one machine what another one wrote."""


@dataclass(frozen=True)
class Job:
    """A job, as the controller knows it."""

    number: str
    state: str
    """PENDING, RUNNING, ..."""
    reason: str
    """Why it waits."""


def check_slurm(config: Config) -> None:
    """Check that the job can be submitted, before anything is spent.

    Raises:
        UserError: SLURM's programs are not here, or it refuses the options.
    """
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise UserError(f"slurm_job needs SLURM's programs where the workflow runs; not found: {', '.join(missing)}")
    done = _run(["sbatch", "--test-only", *_options(config), "--wrap", "true"])
    if done.returncode:
        raise UserError(f"slurm_job: {config.slurm_job!r}: SLURM refuses such a job: {_told(done)}")


def call(config: Config, action: str, arguments: dict[str, str]) -> int:
    """Carry out an action in the run's job; its output is this process's.

    Returns:
        The action's exit code.

    Raises:
        UserError: SLURM does not answer or refuses the job, or jobs keep ending before the action does.
    """
    folder = folder_of(config)
    folder.mkdir(parents=True, exist_ok=True)
    number = ""
    for _ in range(ATTEMPTS):
        number, running = _job(config)
        if not running:
            continue
        with tempfile.TemporaryDirectory(prefix="step-", dir=folder, ignore_cleanup_errors=True) as scratch:
            # Only what a job wrote that is still there is taken: on its way out it may have ended a kernel's process.
            out = Path(scratch).resolve() / "out.json"
            asked = arguments | ({"out": str(out)} if "out" in arguments else {})
            request = {
                "action": action,
                "arguments": asked,
                "ready": str(_ready(config, number)),
                "contents": _contents(_read_by(arguments)),
            }
            code = _step(number, request)
            if code in (0, FAILED) and _state(config, number) == "RUNNING":
                if not code and "out" in arguments:
                    _wait(
                        out.is_file, VISIBLE_S, f"{out}: was written by SLURM job {number}, but is not to be seen here"
                    )
                    write_text(arguments["out"], read_text(out))
                return int(code != 0)
        print(f"SLURM job {number}: ended meanwhile (srun: {code})", file=sys.stderr, flush=True)
    log = log_of(config, number)
    raise UserError(
        f"SLURM ended {ATTEMPTS} jobs before this was done: they may need more time or memory (slurm_job). "
        f"What the last one said, in {log}: {_tail(log)}"
    )


def release(config: Config) -> None:
    """Give the run's job back, where there is one."""
    if config.slurm_job is None or shutil.which("scancel") is None or not folder_of(config).is_dir():
        return
    _run(["scancel", "--quiet", f"--user={os.getuid()}", f"--name={job_name(config)}"])
    shutil.rmtree(folder_of(config), ignore_errors=True)


def hold(config: Config) -> None:
    """In the job: be ready, and leave when nobody came for ``slurm_idle_s``."""
    os.environ[RUN_PID] = str(os.getpid())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if config.warm:
        # Started in a job step, the warm parent would end with it.
        here.call_evaluator(_in_job(config), "nothing", {}, on_device=False)
    ready = _ready(config, os.environ["SLURM_JOB_ID"])
    # Job steps take this process's environment over, so that they find the warm parent. It holds no key.
    write_json(ready, {"environment": dict(os.environ)})
    try:
        with ready.open("r+b") as file:
            while True:
                time.sleep(1)
                idle = time.time() - os.fstat(file.fileno()).st_mtime
                if idle > config.slurm_idle_s and _lock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB):
                    print(f"nobody came for {idle:.0f} s")
                    return
    finally:
        ready.unlink(missing_ok=True)


def carry_out(request: dict[str, Any]) -> int:
    """In a job step: carry out an action as on any machine; returns 0, ENDED or FAILED."""
    try:
        ready = Path(request["ready"])
        _wait(ready.is_file, ANSWERS_S, f"{ready}: the SLURM job is not ready")
        with ready.open("r+b") as file:
            _lock(file.fileno(), fcntl.LOCK_SH)
            if not ready.is_file():
                return ENDED  # it was just leaving
            environment = json.load(file)["environment"]
            os.environ.clear()
            os.environ.update(environment)
            tempfile.tempdir = None
            contents = request["contents"]
            _wait(
                lambda: _contents(map(Path, contents)) == contents,
                VISIBLE_S,
                f"{socket.gethostname()} does not see the files that the workflow sees: a job needs them at the same "
                "paths (docs/clusters.md)",
            )
            config = _in_job(read_config(request["arguments"]["config"]))
            os.utime(file.fileno())
            try:
                code = here.call_evaluator(config, request["action"], request["arguments"])
            finally:
                os.utime(file.fileno())
            if not ready.is_file():
                return ENDED
            return FAILED if code else 0
    except FileNotFoundError as error:
        if error.filename != request["ready"]:
            raise
        return ENDED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED


def folder_of(config: Config) -> Path:
    """The folder of the run that its jobs share with the workflow."""
    return config.results / ".slurm"


def log_of(config: Config, number: str) -> Path:
    """What a job prints; what an action prints is the caller's."""
    return config.results / "logs" / "slurm" / f"{number}.log"


def job_name(config: Config) -> str:
    """The name of a run's job: of the same run, options and code there is one at a time."""
    code = digest(Path(__file__).parents[1])
    folders = [str(folder.resolve()) for folder in (config.results, config.dataset)]
    parts = [*folders, config.eval_backend, config.slurm_job or "", code, sys.executable]
    return f"snakernel-{config.run_name}-{digest_texts(parts)}"


def _ready(config: Config, number: str) -> Path:
    """A file that is there while a job takes actions, locked by each (shared) and by the job that leaves."""
    return folder_of(config).resolve() / f"{number}.json"


def _job(config: Config) -> tuple[str, bool]:
    """The run's job, submitted where there is none, and whether it came to run; waits for it in the queue."""
    with FileLock(folder_of(config) / "submit.lock"):
        found = _find(config)
        number = found.number if found else _submit(config)
    told, pause = "", 0.5
    while True:
        found = _find(config)
        if found is None or found.number != number:
            return number, False
        if found.state == "RUNNING":
            return number, True
        if told != (told := f"{found.state} ({found.reason})"):
            print(f"SLURM job {number}: {told}", file=sys.stderr, flush=True)
        time.sleep(pause)
        pause = min(1.5 * pause, 15)


def _submit(config: Config) -> str:
    log = log_of(config, "%j").resolve()
    log.parent.mkdir(parents=True, exist_ok=True)
    path = folder_of(config).resolve() / "config.yaml"
    write_text(path, config_yaml(config))
    command = shlex.join([sys.executable, str(SCRIPT), "--config", str(path)])
    own = ["--parsable", f"--job-name={job_name(config)}", f"--output={log}", f"--chdir={os.getcwd()}"]
    done = _run(["sbatch", *own, *_options(config), "--wrap", f"exec {command}"])
    if done.returncode:
        raise UserError(f"slurm_job: {config.slurm_job!r}: SLURM refuses the job: {_told(done)}")
    return done.stdout.strip().partition(";")[0]


def _options(config: Config) -> list[str]:
    """The options of sbatch; the user's win."""
    return ["--nodes=1", "--ntasks=1", "--no-requeue", *shlex.split(config.slurm_job or "")]


def _step(number: str, request: dict[str, Any]) -> int:
    """Run an action as a step of a job; returns srun's exit code."""
    # It shares the job's processors, memory and GPUs with steps beside it: a GPU is held by its lock.
    own = [f"--jobid={number}", "--overlap", "--nodes=1", "--ntasks=1", "--cpu-bind=none", f"--chdir={os.getcwd()}"]
    caller = os.getpid()
    return subprocess.run(
        ["srun", "--quiet", *own, sys.executable, str(SCRIPT), "--request", json.dumps(request)],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        # srun, and with it the step, ends when its caller does.
        preexec_fn=lambda: die_with(caller, signal.SIGTERM),
    ).returncode


def _find(config: Config) -> Job | None:
    """The run's job, where there is one that runs or will."""
    lines = _squeue(f"--name={job_name(config)}", "--states=PENDING,CONFIGURING,RUNNING,SUSPENDED")
    return Job(*lines[0].split(maxsplit=2)) if lines else None


def _state(config: Config, number: str) -> str | None:
    found = _find(config)
    return found.state if found is not None and found.number == number else None


def _squeue(*arguments: str) -> list[str]:
    """What the controller says of this user's jobs.

    Raises:
        UserError: it does not answer.
    """
    until = time.monotonic() + ANSWERS_S
    while True:
        done = _run(["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i %T %r", *arguments])
        if not done.returncode:
            return [line for line in done.stdout.splitlines() if line.strip()]
        if time.monotonic() > until:
            raise UserError(f"SLURM does not answer: {_told(done)}")
        time.sleep(5)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=_environment(), capture_output=True, text=True)


def _environment() -> dict[str, str]:
    """What SLURM's programs, and through them its jobs, get of this process's environment: no key."""
    environment = {k: v for k, v in clean_environment(dict(os.environ)).items() if not k.startswith("SLURM_")}
    kept = ("HOME", "USER", "LOGNAME", "SLURM_CONF")
    return environment | {name: os.environ[name] for name in kept if name in os.environ}


def _in_job(config: Config) -> Config:
    """The configuration in the job: the kernel is judged there, and the warm parent ends with the job."""
    return config.model_copy(update={"slurm_job": None, "warm_idle_s": 1e6})


def _read_by(arguments: dict[str, str]) -> Iterator[Path]:
    """The small files that an action with these arguments reads."""
    for name, text in arguments.items():
        path = Path(text)
        if name != "out":
            yield from [path] if not path.is_dir() else [path / part for part in _OF_TASK]


def _contents(paths: Iterable[Path]) -> dict[str, str]:
    """Hashes of files, by their paths; of what is no file, none."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}


_OF_TASK = ("definition.json", "workloads.jsonl", "reference/reference.json")


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    return True


def _wait(ready: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Wait until something is so.

    Raises:
        UserError: it did not come true.
    """
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise UserError(otherwise)
        time.sleep(0.2)


def _told(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"


def _tail(log: Path) -> str:
    try:
        return " / ".join(log.read_text(errors="replace").split("\n")[-6:]).strip(" /") or "nothing"
    except OSError:
        return "nothing"
