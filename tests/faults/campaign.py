"""Kill -9, at seeded points of real runs."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from snakernel.worker import SCRIPTS
from workflow.running import Project

from faults.harness import Ledger, Tally, compare, forks_of, jobs_of, of_kind, start, unlock, waited
from faults.starter import Run

KINDS = {
    "snakemake": "kill -9 of Snakemake, its jobs go on",
    "everything": "kill -9 of Snakemake and of all its jobs",
    "propose.py": "kill -9 of a proposal",
    "evaluate.py": "kill -9 of an evaluation",
    "evaluator.py": "kill -9 of an evaluation",
    "fork": "kill -9 of a job's fork in the worker",
    "worker": "kill -9 of the worker",
    "judge": "kill -9 of a judge",
    "candidate": "kill -9 of a candidate",
    "parent": "kill -9 of the evaluator's warm parent",
}
ANOTHER = "kill -9 of another job"
LIGHT = {f"{name}.py" for name in SCRIPTS}
"""Jobs whose work is a fork's of the worker."""
JUDGING = ("measure_reference.py", "evaluate.py", "confirm_best.py")


def run_campaigns(
    fresh: Project,
    whole: dict[str, Any],
    place: Path,
    wanted: int,
    seed: int,
    judging: bool = False,
) -> Iterator[dict[str, Tally]]:
    """Kill until ``wanted`` kills have hit: runs one after another, each killed again and again until it is done.

    Args:
        fresh: a checkout whose run has not begun.
        whole: the essence of a run that was left alone.
        place: where the runs are, one after another: the warm parents are those of the place. What went wrong is kept
            beside it.
        wanted: how many kills.
        seed: of the points.
        judging: kill only while kernels are judged.

    Yields:
        After each run, what came of all kills so far.
    """
    tallies: dict[str, Tally] = defaultdict(Tally)
    draw = random.Random(seed)
    hits = number = 0
    while hits < wanted:
        number += 1
        project = fresh.copy(place)
        one = Tally()
        ledger = Ledger(project, one)
        mine: list[str] = []
        code: int | None = 1
        while code:
            unlock(project)
            # Half of the runs are told to try a job again that failed, and are killed as long as they live; the others
            # end with the job.
            patient = draw.random() < 0.5
            run = start(project, *(["--retries", "30"] if patient else []))
            killed, seen = 0, set()
            while hits + killed < wanted and run.poll() is None:
                kind = kill(run, draw, seen, judging)
                if kind:
                    killed += 1
                    mine.append(KINDS.get(kind, ANOTHER))
                    ledger.look()
                if not patient:
                    break
            hits += killed
            code = run.wait()
            ledger.look()
            if code and not killed:
                one.err(f"it failed and was not killed: {(project.folder / 'run.log').read_text()[-3000:]}")
                break
        compare(project, whole, one)
        if number % 5 == 0 and project.plan():
            one.err("the run was not done")
        for name in mine:
            tallies[name].tried += 1
        if one.told:
            print(f"campaign_{number} {mine}: {one.told}", flush=True)
            # It is told of the last kill: the ones before it were survived at least once.
            last = tallies[mine[-1] if mine else ANOTHER]
            last.lost += one.lost
            last.doubled += one.doubled
            last.wrong += one.wrong
            last.told += [f"campaign_{number} {mine}: {text}" for text in one.told]
            shutil.copytree(place, place.with_name(f"campaign_{number}"), symlinks=True)
        shutil.rmtree(place)
        yield tallies


def kill(run: Run, draw: random.Random, seen: set[int], judging: bool) -> str | None:
    """Kill while one of the next jobs is at work: the job, what works for it, or Snakemake.

    The job is one of the next three. The moment is told by what it has used of the processor, so that a busy machine is
    killed as far on as an idle one; or it is one in the life of the fork that works for it.

    Args:
        run: the run.
        draw: where points are drawn.
        seen: the jobs that have been let pass, or were killed.
        judging: of the jobs only those that judge a kernel, and only when they are at it.

    Returns:
        What was killed: a key of :data:`KINDS`, or a script's name; None where the run ended before.
    """
    let_pass = draw.randrange(2 if judging else 3)
    while job := _next_job(run, seen):
        pid, script = job
        if judging and script not in JUDGING:
            continue
        if let_pass:
            let_pass -= 1
            continue
        light = script in LIGHT
        whats = ["snakemake", "everything", script]
        whats += ["fork", "worker"] if light else []
        if judging:
            # What forks from the one that measures a reference is no candidate.
            what = draw.choice([*whats, "judge", "parent", *(["candidate"] * 2 if light else [])])
            at_it = "candidate" if what == "candidate" else "judge"
            waited(lambda: of_kind(run.pid, at_it) or not psutil.pid_exists(pid), run)  # noqa: B023
            time.sleep(draw.uniform(0, 0.3))
        elif not light:
            work_on(run, pid, draw.uniform(0, 0.6))
            what = draw.choice([*whats, script])
        else:
            what = draw.choice([*whats, script, "fork"])
            if what == "fork" or draw.random() < 0.5:
                _await_fork(run, pid)
                time.sleep(draw.uniform(0, 0.03))
            else:
                work_on(run, pid, draw.uniform(0, 0.1))
        if run.poll() is not None:
            return None
        if what in ("snakemake", "everything"):
            jobs = psutil.Process(run.pid).children(recursive=True)
            run.kill()
            for one in jobs if what == "everything" else []:
                with contextlib.suppress(psutil.Error):
                    one.kill()
            return what
        victims = of_kind(run.pid, what)
        if victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(draw.choice(victims), signal.SIGKILL)
                return what
    return None


def _await_fork(run: Run, pid: int) -> None:
    """Wait until the worker has a fork, or a job has ended."""
    while run.poll() is None and psutil.pid_exists(pid):
        for worker in of_kind(run.pid, "worker"):
            deadline = time.monotonic() + 0.2
            while psutil.pid_exists(worker) and time.monotonic() < deadline:
                if forks_of(worker):
                    return
                time.sleep(0.001)
        time.sleep(0.01)


def _next_job(run: Run, seen: set[int]) -> tuple[int, str] | None:
    """Wait for a job that was not seen yet: its process and its script; None where the run ended before."""
    found: dict[int, str] = {}

    def begun() -> bool:
        found.update((pid, script) for pid, script in jobs_of(run.pid).items() if pid not in seen)
        return bool(found)

    if not waited(begun, run):
        return None
    seen.update(found)
    return next(iter(found.items()))


def work_on(run: Run, pid: int, processor_s: float, seconds: float = 0.0) -> bool:
    """Let a process use the processor for so long, and then go on for some seconds; False where it ended before."""

    def used() -> bool:
        try:
            return sum(psutil.Process(pid).cpu_times()[:2]) >= processor_s
        except psutil.Error:
            return True

    waited(used, run)
    time.sleep(seconds)
    return psutil.pid_exists(pid)
