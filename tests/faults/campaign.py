"""Kill -9, at seeded points of real runs."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from workflow.running import Project

from faults.harness import STAGES, TASK, Ledger, Tally, compare, of_kind, start, unlock, waited
from faults.starter import Run

KINDS = {
    "snakemake": "kill -9 of Snakemake, its jobs go on",
    "everything": "kill -9 of Snakemake and of all its jobs",
    "propose.py": "kill -9 of a proposal",
    "evaluate.py": "kill -9 of an evaluation",
    "fork": "kill -9 of a judge or a candidate",
    "parent": "kill -9 of the warm parent",
}
OTHERS = ("extract_kernel.py", "select_best.py", "write_prompt.py")
ANOTHER = "kill -9 of another job"
LAST = {
    "propose.py": f"{TASK}/step_3/response.json",
    "evaluate.py": f"{TASK}/step_3/evaluation.json",
    "fork": f"{TASK}/best/confirmation.json",
    "parent": f"{TASK}/best/confirmation.json",
    "extract_kernel.py": f"{TASK}/step_3/kernel.py",
    "select_best.py": f"{TASK}/step_3/best.json",
    "write_prompt.py": f"{TASK}/step_3/prompt.md",
}
"""The file that the last process of a kind makes: where it is there, none is left to kill."""


def run_campaigns(
    fresh: Project,
    whole: dict[str, Any],
    place: Path,
    wanted: int,
    seed: int,
    kinds: Sequence[str] = (*KINDS, *OTHERS),
) -> Iterator[dict[str, Tally]]:
    """Kill until ``wanted`` kills have hit: runs one after another, each killed again and again until it is done.

    Args:
        fresh: a checkout whose run has not begun.
        whole: the essence of a run that was left alone.
        place: where the runs are, one after another: the warm parent is that of the place. What went wrong is kept
            beside it.
        wanted: how many kills.
        seed: of the points.
        kinds: what to kill: keys of :data:`KINDS`, or names of scripts.

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
            killed = 0
            while hits + killed < wanted and run.poll() is None:
                left = [kind for kind in kinds if not (project.results / LAST.get(kind, "none")).exists()]
                kind, moment = draw.choice(left), draw.random()
                if kill(project, run, kind, moment):
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
            # It is told of the last kill: the ones before it were survived at least once.
            last = tallies[mine[-1] if mine else ANOTHER]
            last.lost += one.lost
            last.doubled += one.doubled
            last.wrong += one.wrong
            last.told += [f"campaign_{number} {mine}: {text}" for text in one.told]
            shutil.copytree(place, place.with_name(f"campaign_{number}"), symlinks=True)
        shutil.rmtree(place)
        yield tallies


def kill(project: Project, run: Run, kind: str, moment: float) -> bool:
    """Kill a process of a kind of a run, at a moment between 0 and 1; whether one was hit.

    Snakemake is killed up to half a second after one of the next files has been made. Of the other kinds, a process is
    killed within the first part of its life; where it has ended by then, the next one is.
    """
    if kind in ("snakemake", "everything"):
        pending = [stage for stage in STAGES if not (project.results / stage).exists()][:4]
        where = moment * len(pending)
        if not pending or not waited((project.results / pending[int(where)]).exists, run):
            return False
        time.sleep(where % 1 * 0.5)
        if run.poll() is not None:
            return False
        jobs = psutil.Process(run.pid).children(recursive=True)
        run.kill()
        for job in jobs if kind == "everything" else []:
            with contextlib.suppress(psutil.Error):
                job.kill()
        return True
    # Half of the warm parents are killed while a fork of theirs judges, the others at any time.
    awaited = "fork" if kind == "parent" and moment < 0.5 else kind
    seconds = 8 if awaited == "parent" else 0.8 if awaited in ("evaluate.py", "fork") else 0.3
    tried: set[int] = set()

    def appeared() -> bool:
        found = set(of_kind(run.pid, awaited)) - tried
        tried.update(found)
        return bool(found)

    while waited(appeared, run):
        time.sleep(moment * seconds)
        alive = of_kind(run.pid, kind)
        if alive and run.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(alive[int(moment * 1000) % len(alive)], signal.SIGKILL)
                return True
    return False
