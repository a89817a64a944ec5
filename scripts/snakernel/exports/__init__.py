"""What was found, in the forms in which others use it: FlashInfer-Trace, the contest, an RO-Crate.

The agent baseline's own folders are in :mod:`snakernel.baseline`, which also reads them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakernel.config import Config
from snakernel.dataset import Task
from snakernel.errors import UserError
from snakernel.evaluation.verdict import Confirmation, Status
from snakernel.files import read_model, read_text
from snakernel.history import Step, step
from snakernel.search import create_strategy


@dataclass(frozen=True)
class Finished:
    """A task whose search has come to its end."""

    task: Task
    folder: Path
    steps: list[Step]
    """Those that were asked, in their order."""

    @property
    def definition(self) -> dict[str, Any]:
        """The definition's JSON."""
        return json.loads(read_text(self.folder / "definition.json"))

    @property
    def best(self) -> Step | None:
        """The step of the best kernel; None where none is correct, or none was when it was checked once more."""
        if self.confirmation is not None:
            number = self.confirmation.step
        else:
            best = self.steps[-1].state.best
            number = best.step if best is not None and best.correct else None
        return step(self.folder, number) if number is not None else None

    @property
    def confirmation(self) -> Confirmation | None:
        """What the last check of the best kernels found; None in results of before there was one."""
        path = self.folder / "best" / "confirmation.json"
        return read_model(path, Confirmation) if path.exists() else None

    def kernels(self, which: str) -> list[Step]:
        """The steps whose kernels are exported, each kernel once: ``best``, ``correct`` or ``all``; best first."""
        best = [self.best] if self.best is not None else []
        if which == "best":
            return best
        contenders = self.confirmation.contenders if self.confirmation is not None else []
        refuted = {one.step for one in contenders if one.status is not Status.PASSED}
        found = {one.evaluation.kernel_sha256: one for one in reversed([*best, *self.steps]) if _judged(one)}
        kernels = list(reversed(found.values()))
        if which == "all":
            return kernels
        return [one for one in kernels if one.evaluation.correct and one.number not in refuted]


def _judged(one: Step) -> bool:
    """Whether a step has a kernel of its own."""
    return one.extraction.kind != "none"


def finished_tasks(config: Config, tasks: list[Task]) -> Iterator[Finished]:
    """The tasks that are done; the others are named on the terminal."""
    for task in tasks:
        folder = config.results / task.name
        count = create_strategy(config, task.name).steps
        if not (step(folder, count).folder / "best.json").exists():
            print(f"left out: {task.name}: step {count} has no result yet")
            continue
        asked = [one for one in (step(folder, number) for number in range(1, count + 1)) if not one.skipped]
        if asked:
            yield Finished(task, folder, asked)
        else:
            print(f"left out: {task.name}: no step was asked")


def author(config: Config, one: Step) -> str:
    """Who wrote a kernel: ``export_author``, else the model as served."""
    return config.export_author or one.response.model


def path_segment(text: str) -> str:
    """A name as one folder's: letters, digits and _ . + - stay."""
    return re.sub(r"[^\w.+-]+", "-", text).strip(".") or "unknown"


def new_folder(folder: Path) -> Path:
    """A folder to export into.

    Raises:
        UserError: it holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is not an empty folder; name a new one, nothing is written over")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
