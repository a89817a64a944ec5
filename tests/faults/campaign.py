"""Kill -9, at seeded points of real runs."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from workflow.running import Project

from faults.harness import STAGES, Ledger, Tally, compare, finish, of_kind, points, start, unlock, waited

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


def run_campaigns(
    fresh: Project,
    whole: dict[str, Any],
    folder: Path,
    wanted: int,
    seed: int,
    kinds: Sequence[str] = (*KINDS, *OTHERS),
) -> dict[str, Tally]:
    """Kill until ``wanted`` kills have hit: runs one after another, each killed again and again until it is done.

    Args:
        fresh: a checkout whose run has not begun.
        whole: the essence of a run that was left alone.
        folder: where the runs are.
        wanted: how many kills.
        seed: of the points.
        kinds: what to kill: keys of :data:`KINDS`, or names of scripts.
    """
    tallies: dict[str, Tally] = defaultdict(Tally)
    drawn = points(seed, kinds)
    hits = number = 0
    while hits < wanted:
        number += 1
        project = fresh.copy(folder / f"campaign_{number}")
        one = Tally()
        ledger = Ledger(project, one)
        mine: list[str] = []
        while True:
            kind, moment = next(drawn)
            unlock(project)
            if hits == wanted:
                code, said = finish(project)
                if code:
                    one.wrong += 1
                    one.told.append(said[-3000:])
                ledger.look()
                break
            run = start(project)
            if kill(project, run, kind, moment):
                hits += 1
                mine.append(KINDS.get(kind, ANOTHER))
            run.wait()
            ledger.look()
            if run.returncode == 0:
                break
        if not mine:
            shutil.rmtree(project.folder)
            continue
        if number % 5 == 0 and project.plan():
            one.wrong += 1
            one.told.append("the run was not done")
        compare(project, whole, one)
        for kind in mine:
            tallies[kind].tried += 1
        # What went wrong is told of the last kill: the ones before it were survived at least once.
        last = tallies[mine[-1]]
        last.lost, last.doubled, last.wrong = last.lost + one.lost, last.doubled + one.doubled, last.wrong + one.wrong
        last.told += [f"{project.folder.name} {mine}: {text}" for text in one.told]
        if not one.told:
            shutil.rmtree(project.folder)
    return tallies


def kill(project: Project, run: subprocess.Popen[str], kind: str, moment: float) -> bool:
    """Kill a process of a kind of a run, at a moment between 0 and 1; whether one was hit."""
    if kind in ("snakemake", "everything"):
        pending = [stage for stage in STAGES if not (project.results / stage).exists()]
        if not pending or not waited((project.results / pending[int(moment * len(pending))]).exists, run, 120):
            return False
        jobs = psutil.Process(run.pid).children(recursive=True)
        run.kill()
        for job in jobs if kind == "everything" else []:
            with contextlib.suppress(psutil.Error):
                job.kill()
        return True
    found: list[psutil.Process] = []

    def appeared() -> bool:
        found[:] = of_kind(run.pid, kind)
        return bool(found)

    if not waited(appeared, run, 120):
        return False
    time.sleep(moment * (0.8 if kind in ("evaluate.py", "fork") else 0.3))
    hit = False
    for process in found[:1]:
        with contextlib.suppress(psutil.Error):
            process.kill()
            hit = True
    return hit
