"""Answers out of files: the embedded demo, the tests' model, and how anyone feeds kernels of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from snakernel.errors import UserError
from snakernel.files import read_text
from snakernel.llm.base import Answer, Request


class Replay:
    """Answers every question with the raw text of one file, at no cost."""

    def __init__(self, replay_path: Path | str, definition: str, step: int):
        """The answer to a step is {replay_path}/{definition}/{step}.md."""
        self.path = Path(replay_path) / definition / f"{step}.md"

    def ask(self, request: Request) -> Answer:
        """The file's text.

        Raises:
            UserError: the file is missing or empty.
        """
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
