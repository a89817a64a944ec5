"""The files of a task's steps, as the prompts, the selection and the summary read them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from snakernel.errors import UserError
from snakernel.evaluation.solution import kernel_sha256
from snakernel.evaluation.verdict import Evaluation
from snakernel.extraction import Extraction
from snakernel.files import read_model, read_text, remedy
from snakernel.llm.base import Answer
from snakernel.search.state import Attempt, State
from snakernel.skipping import skip_reason


@dataclass(frozen=True)
class Step:
    """One step's folder."""

    folder: Path

    @property
    def number(self) -> int:
        """The step's number."""
        return int(self.folder.name.removeprefix("step_"))

    @cached_property
    def kernel(self) -> str:
        """The candidate's source.

        Raises:
            UserError: it is missing, or is not what was made of the answer.
        """
        code = self._told(read_text, "kernel.py")
        if (self.folder / "extraction.json").exists() and self.extraction.kernel_sha256 is not None:
            path = self.folder / "kernel.py"
            if kernel_sha256(code) != self.extraction.kernel_sha256:
                raise UserError(f"{path}: is not what was made of the answer: it was changed since; {remedy(path)}")
        return code

    @cached_property
    def evaluation(self) -> Evaluation:
        """The verdict."""
        return self._told(lambda path: read_model(path, Evaluation), "evaluation.json")

    @cached_property
    def extraction(self) -> Extraction:
        """How the kernel came out of the answer."""
        return self._told(lambda path: read_model(path, Extraction), "extraction.json")

    @cached_property
    def response(self) -> Answer:
        """The answer."""
        return self._told(lambda path: read_model(path, Answer), "response.json")

    @cached_property
    def state(self) -> State:
        """The search's state after the step."""
        return self._told(lambda path: read_model(path, State), "best.json")

    @property
    def skipped(self) -> str | None:
        """Why the step was not asked: then it has no answer, and is no attempt. None where it was asked."""
        return skip_reason(self.folder)

    def attempt(self) -> Attempt:
        """The step as the search sees it, if it was asked."""
        evaluation, extraction, answer = self.evaluation, self.extraction, self.response
        question = answer.request.question
        model = question.model if question.role != "sweep" else None
        return Attempt(
            step=self.number,
            compiled=evaluation.compiled,
            correct=evaluation.correct,
            speedup=evaluation.speedup or 0.0,
            has_kernel=extraction.kind != "none",
            base=extraction.base,
            duplicate_of=extraction.duplicate_of,
            plan=extraction.plan,
            parameters=question.parameters,
            model=model,
            cost_usd=answer.cost_usd if model is not None else None,
        )

    def _told(self, read, name: str):
        path = self.folder / name
        if not path.exists():
            # Snakemake does not make again what only later steps' results depend on: the user must name it.
            raise UserError(f"{path}: is missing; make it again with `snakemake {path}`")
        return read(path)


def step_folder(task_folder: Path | str, number: int) -> Path:
    """The folder of a step."""
    return Path(task_folder) / f"step_{number}"


def step(task_folder: Path | str, number: int) -> Step:
    """A step of a task."""
    return Step(step_folder(task_folder, number))
