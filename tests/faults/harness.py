"""Runs that are disturbed, and what must be left of them.

A run here is small but real: one task of three steps, of which only the second is correct, so that what is chosen does
not depend on times. Whatever happens to it, it must end with the files of a run that was left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from evaluating import KERNEL
from snakernel.warm import RUN_PID
from workflow.running import Project

from faults.starter import Run

TASK, DEFINITION = "rmsnorm_rmsnorm_h256", "rmsnorm_h256"
ANSWERS = {
    1: "A first try.\n\n```python\nimport nothing_of_this_name\n\n\ndef run(hidden_states, weight):\n    pass\n```\n",
    2: "```python\n{kernel}\n```\n",
    3: "```python\ndef run(hidden_states, weight):\n    return hidden_states * 0 + 1000\n```\n",
}
STAGES = (
    f"{TASK}/definition.json",
    f"{TASK}/reference/reference.json",
    f"{TASK}/step_1/prompt.md",
    f"answers/{TASK}/1.json",
    f"{TASK}/step_1/response.json",
    f"{TASK}/step_1/kernel.py",
    f"{TASK}/step_2/prompt.json",
    f"{TASK}/step_2/kernel.py",
    f"{TASK}/step_2/evaluation.json",
    f"{TASK}/step_3/best.json",
    f"{TASK}/best/kernel.py",
)
"""Moments of a run: the file that has just been made."""
SCRATCH = Path(tempfile.gettempdir()) / f"snakernel-faults-{os.getpid()}"
"""The runs' folder for temporary files."""
ENVIRONMENT = {RUN_PID: str(os.getpid()), "TMPDIR": str(SCRATCH)}
"""The warm parents belong to the tests: a killed run leaves them for the next one, so that a kill costs no import."""
GENERATIONS = {
    "parent": ("evaluator.py", 0),
    "judge": ("evaluator.py", 1),
    "candidate": ("evaluator.py", 2),
    "worker": ("worker.py", 0),
    "fork": ("worker.py", 1),
}
"""Kinds of processes that are none of a run's session: the script of their warm parent, and how far they descend."""

NOT_COMPARED = ("logs/", "exports/", "report/", "live.html", "starts.jsonl", "ro-crate-metadata.json")
"""What says when and by which commands a run was made."""
_TIMES = re.compile(
    r"started|ended|seconds|.*_ms|.*_s|latency|speedup.*|best_speedup.*|.*_speedup|checksum|conditions|notes|log|calls"
    r"|max_.*_error|suspicions|isolation|temperature_c"
)
"""Fields that are times, or are made of them."""
_NUMBER = re.compile(r"\d[\d,]*(\.\d+)?(e[-+]?\d+)?%?")


@dataclass
class Tally:
    """What came of one fault: rows of docs/faults.md."""

    tried: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    told: list[str] = field(default_factory=list)
    """What was wrong, for the one who looks."""
    missed: list[str] = field(default_factory=list)
    """Points at which the fault did not come about."""

    def meet(self, point: object, met: object) -> None:
        """Count a point at which the fault came about, or name it where it did not."""
        print(f"{datetime.now():%H:%M:%S} {point}: {'tried' if met else 'not met'}", flush=True)
        if met:
            self.tried += 1
        else:
            self.missed.append(str(point))

    def err(self, text: str) -> None:
        """Count something that is wrong."""
        self.wrong += 1
        self.told.append(text)

    def check(self) -> None:
        """Fail where anything was lost, doubled or wrong, and where a point was not tried."""
        assert not (self.lost or self.doubled or self.wrong), "\n".join(self.told)
        assert self.tried, "the fault was never tried"
        assert not self.missed, f"tried at {self.tried} points, but not at: {', '.join(self.missed)}"


def create(folder: Path, **keys: object) -> Project:
    """A checkout whose run has not begun."""
    project = Project.create(folder, **{"warm_idle_s": 600.0, **keys})
    (project.folder / "tasks.txt").write_text("rmsnorm, rmsnorm_h256\n")
    kernel = json.loads(KERNEL.read_text())["sources"][0]["content"]
    for step, text in ANSWERS.items():
        (project.folder / "replay" / DEFINITION / f"{step}.md").write_text(text.replace("{kernel}", kernel))
    return project


def start(project: Project, *arguments: str, **environment: str) -> Run:
    """Start snakemake in a session of its own; its output is collected in run.log."""
    SCRATCH.mkdir(exist_ok=True)
    return Run(
        project.folder,
        ["--configfile", str(project.config), "--cores", "2", *arguments],
        {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **ENVIRONMENT, **environment},
    )


def finish(project: Project, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run snakemake to its end; the exit code and all that it said."""
    code = start(project, *arguments, **environment).wait()
    return code, (project.folder / "run.log").read_text()


def unlock(project: Project) -> None:
    """What `snakemake --unlock` does, without its start-up."""
    shutil.rmtree(project.folder / ".snakemake" / "locks", ignore_errors=True)


def resume(project: Project, tally: Tally, **environment: str) -> None:
    """Go on to the end, as a user does after a kill; a run that does not get there is wrong."""
    unlock(project)
    code, said = finish(project, **environment)
    if code:
        tally.err(said[-3000:])


class Ledger:
    """The journal as it was seen: an entry that goes is lost, one that changes was asked for twice."""

    def __init__(self, project: Project, tally: Tally):
        self.project, self.tally, self.seen = project, tally, {}

    def look(self) -> None:
        """Compare the journal with what was seen of it, and take away the answers that it has."""
        now = self.project.journal()
        for name, content in self.seen.items():
            if name not in now:
                self.tally.lost += 1
                self.tally.told.append(f"lost: {name}")
            elif now[name] != content:
                self.tally.doubled += 1
                self.tally.told.append(f"doubled: {name}")
        self.seen |= now
        for name in now:
            # Whoever asks again for what is answered now finds nobody.
            (self.project.folder / "replay" / DEFINITION / f"{Path(name).stem}.md").unlink(missing_ok=True)


def essence(project: Project) -> dict[str, Any]:
    """All files of a run, without what is a time or made of one."""
    found = {}
    for path in sorted(project.results.rglob("*")):
        name = str(path.relative_to(project.results))
        if not path.is_file() or path.name.startswith(".") or name.startswith(NOT_COMPARED):
            continue
        if path.suffix == ".json":
            found[name] = _timeless(json.loads(path.read_text()))
        elif path.name in ("prompt.md", "summary.csv"):
            found[name] = _NUMBER.sub("#", path.read_text())
        else:
            found[name] = path.read_bytes()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if not _TIMES.fullmatch(key)}
    if isinstance(value, list):
        return [_timeless(one) for one in value]
    return _NUMBER.sub("#", value) if isinstance(value, str) and " " in value else value


def compare(project: Project, whole: dict[str, Any], tally: Tally, but: str = "$.") -> None:
    """Count as wrong what a disturbed run has otherwise than one that was left alone, and what lies about."""
    settle(project, tally)
    now = essence(project)
    names = {name for name in now.keys() | whole.keys() if not re.search(but, name)}
    different = sorted(name for name in names if now.get(name) != whole.get(name))
    left = [str(path) for path in project.results.rglob("*.tmp")] + temporary_files()
    if different or left:
        tally.err(f"other files: {different}; left: {left}")


def settle(project: Project, tally: Tally) -> None:
    """Wait until the jobs that a killed Snakemake left are done; one that does not end is wrong, and is ended."""
    deadline = time.monotonic() + 60
    while left := _working_in(project.folder) | _working_in(SCRATCH):  # a candidate is at home in the latter
        if time.monotonic() > deadline:
            tally.err(f"still there: {left}")
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            deadline += 60
        time.sleep(0.05)


def temporary_files() -> list[str]:
    """What lies in the folder for temporary files when no job is left, except the warm parents' sockets; taken away.

    The parents may still be at it: they are waited for.
    """
    own = f"snakernel-{os.getuid()}"
    deadline = time.monotonic() + 5
    while left := [path for path in SCRATCH.glob("snakernel-*") if path.name != own]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    told = [str(one) for path in left for one in (path, *path.rglob("*"))]
    for path in left:
        shutil.rmtree(path)
    return told


def _working_in(folder: Path) -> dict[int, list[str]]:
    """The processes whose working directory is a folder or below it."""
    found = {}
    for pid, command in _commands().items():
        with contextlib.suppress(OSError):
            if Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(folder):
                found[pid] = command
    return found


def _commands() -> dict[int, list[str]]:
    """The command lines of all processes. It is asked many times a second, for which psutil is too slow."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            found[int(pid)] = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    return found


def of_kind(run: int, kind: str) -> list[int]:
    """The processes of a kind: those of a run's jobs with a script's name, or one of :data:`GENERATIONS`."""
    if kind not in GENERATIONS:
        return [pid for pid, script in jobs_of(run).items() if script == kind]
    script, generation = GENERATIONS[kind]
    family = _family(script)

    def descent(pid: int) -> int:
        return 1 + descent(family[pid]) if family[pid] in family else 0

    return [pid for pid in family if min(descent(pid), 2) == generation]


def forks_of(pid: int) -> list[int]:
    """The children of a process, read in no time: a light job's fork lives for some milliseconds."""
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def jobs_of(run: int) -> dict[int, str]:
    """The jobs of a run that are at work: their processes and scripts."""
    found = {}
    for pid, command in _commands().items():
        if len(command) > 1 and command[1].endswith(".py"):
            with contextlib.suppress(OSError):
                # A run is a session of its own; the warm parent and its forks are none of it.
                if os.getsid(pid) == run:
                    found[pid] = Path(command[1]).name
    return found


def _family(script: str = ".py") -> dict[int, int]:
    """The warm parents of the tests, of a script, and their forks, each with the id of its parent."""
    found = {}
    mine = ["--run-pid", str(os.getpid())]
    for pid, command in _commands().items():
        if command[1:2] and command[1].endswith(script) and mine in map(list, zip(command, command[1:], strict=False)):
            with contextlib.suppress(psutil.Error):
                found[pid] = psutil.Process(pid).ppid()
    return found


def end_parents() -> None:
    """End the warm parents that the tests left."""
    for pid in _family():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def waited(condition: Callable[[], object], run: Run, seconds: float = 300) -> bool:
    """Wait for a condition as long as a run goes on; whether it came true."""
    deadline = time.monotonic() + seconds
    while run.poll() is None and time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
