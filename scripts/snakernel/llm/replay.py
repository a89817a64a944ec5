"""Answers out of files: the embedded demo, the tests' model, and how anyone feeds kernels of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from snakernel.errors import UserError
from snakernel.files import read_model, read_text
from snakernel.llm.base import Answer, Request
from snakernel.skipping import NotAsked, skip_reason


class Replay:
    """Answers every question with the raw text of one file, at no cost."""

    def __init__(self, replay_path: Path | str, task: str, definition: str, step: int):
        """The answer to a step is {replay_path}/{definition}/{step}.md, or, where replay_path is the folder of a run,
        what that run's journal has of the same task and step."""
        self.path = Path(replay_path) / definition / f"{step}.md"
        self.journal = Path(replay_path) / "answers" / task / f"{step}.json"
        self.step_folder = Path(replay_path) / task / f"step_{step}"

    def ask(self, request: Request) -> Answer:
        """The file's text.

        Raises:
            UserError: the file is missing or empty.
            NotAsked: the run that is replayed did not ask this step.
        """
        if not self.path.is_file() and self.journal.is_file():
            return self._from_run(request)
        if not self.path.is_file() and (why := skip_reason(self.step_folder)):
            raise NotAsked(why)
        if not self.path.is_file():
            raise UserError(
                f"{self.path}: no recorded answer there; replay_path must hold {{definition}}/{{step}}.md for each of "
                "total_steps steps"
            )
        text = read_text(self.path)
        if not text.strip():
            raise UserError(f"{self.path}: the recorded answer is empty")
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return Answer(
            api_type="replay",
            request=request,
            text=text,
            model=request.model,
            stop_reason="end_turn",
            cost_usd=0.0,
            started=now,
            ended=now,
        )

    def _from_run(self, request: Request) -> Answer:
        """Another run's answer, to the question that it was asked: it was paid for there, so it costs nothing here.

        What it was made of is that run's too, so that its edits go onto the same kernel.
        """
        kept = read_model(self.journal, Answer)
        question = kept.request.question
        return kept.model_copy(
            update={
                "api_type": "replay",
                "request": request.model_copy(update={"question": question}),
                "cost_usd": 0.0,
                "warnings": [*kept.warnings, f"replayed from {self.journal}"],
            }
        )
