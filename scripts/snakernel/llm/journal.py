"""The journal of what models answered: drawn once, kept until a person takes it away.

A step's entry is results/{run}/answers/{task}/{step}.json. It is no rule's output, so Snakemake never deletes it, and
it is on disk, whole, before anything looks at the answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from snakernel.errors import UserError
from snakernel.files import read_model, reserve
from snakernel.llm.base import Answer, Provider, Request

RESERVED_BYTES = 2**21
"""Disk space that is taken before a model is asked: more than its prompt, its answer and its thinking."""


def kept_answers(results: Path | str, task: str) -> list[Answer]:
    """All answers that a task has in the journal, those that were set aside too: each was paid for."""
    return [read_model(path, Answer) for path in sorted((Path(results) / "answers" / task).glob("[!.]*.json"))]


class Journal:
    """The entry of one step."""

    def __init__(self, results: Path | str, task: str, step: int):
        folder = Path(results) / "answers" / task
        self.path = folder / f"{step}.json"
        self._lock = folder / f".{step}.lock"

    def read(self) -> Answer | None:
        """The kept answer, or None where the step was never answered."""
        return read_model(self.path, Answer) if self.path.exists() else None

    def answer(self, request: Callable[[], Request], provider: Callable[[], Provider]) -> tuple[Answer, bool]:
        """The kept answer, else a new one, kept before it is returned; and whether it is new.

        Both arguments are made only where the model must be asked. The entry is locked meanwhile: of two processes
        that want the same answer, one asks and the other reads. The lock goes with its process.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._lock):
            self._recover()
            kept = self.read()
            if kept is not None:
                return kept, False
            # An answer that finds the disk full would be lost: its place is taken before it is asked for.
            with reserve(self.path, RESERVED_BYTES) as keep:
                answer = provider().ask(request())
                keep(answer)
            return answer, True

    def _recover(self) -> None:
        """Take an answer that was written whole, but whose process was killed before it had its name; drop others."""
        for left in sorted(self.path.parent.glob(f".{self.path.name}.*.tmp")):
            try:
                # Killed after it was written and before what was reserved and not needed was given back.
                os.truncate(left, len(left.read_bytes().rstrip(b"\0")))
                read_model(left, Answer)
            except UserError:
                left.unlink()
                continue
            if self.path.exists():
                left.unlink()
            else:
                left.rename(self.path)

    def set_aside(self) -> Path:
        """Rename the kept answer, so that the step is drawn again; the old answer stays beside the new one.

        Returns:
            Where the old answer is now: {step}.{when it ended}.json.

        Raises:
            UserError: the step was never answered.
        """
        with FileLock(self._lock):
            if not self.path.exists():
                raise UserError(f"{self.path}: this step has no answer to set aside")
            try:
                ended = datetime.fromisoformat(read_model(self.path, Answer).ended)
            except UserError:
                # A damaged entry is set aside as it is.
                ended = datetime.now(UTC)
            when = ended.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%f")
            aside = self.path.with_name(f"{self.path.stem}.{when}.json")
            self.path.rename(aside)
            return aside
