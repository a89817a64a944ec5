"""Prompts: Jinja templates, one a role, filled with what an expert would want to look at."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from snakernel.config import Config
from snakernel.errors import UserError
from snakernel.evaluation.verdict import Evaluation, Reference
from snakernel.files import read_model, read_text
from snakernel.history import Step, step
from snakernel.llm.base import Question
from snakernel.search import Attempt, State, Strategy

TEMPLATES = Path(__file__).parents[2] / "prompts"
ERROR_CHARS = 3_000
DIFF_LINES = 120


@dataclass(frozen=True)
class ShownAttempt:
    """An attempt as templates see it."""

    step: int
    code: str
    evaluation: Evaluation
    error: str
    """What went wrong, cut to what a prompt can bear."""
    warnings: list[str]
    """What could not be used of the answer."""
    diff: str
    """Unified diff to the kernel that it was edited from; empty for a new kernel."""
    is_best: bool

    @classmethod
    def of(cls, one: Step, best: Attempt | None) -> ShownAttempt:
        """Read an attempt's files."""
        diff = ""
        if one.extraction.kind == "edits" and one.extraction.base is not None:
            before = step(one.folder.parent, one.extraction.base).kernel
            lines = list(difflib.unified_diff(before.splitlines(), one.kernel.splitlines(), lineterm="", n=2))[2:]
            if len(lines) > DIFF_LINES:
                lines = [*lines[:DIFF_LINES], f"... {len(lines) - DIFF_LINES} more lines"]
            diff = "\n".join(lines)
        return cls(
            step=one.number,
            code=one.kernel.strip("\n"),
            evaluation=one.evaluation,
            error=shorten(one.evaluation.error, ERROR_CHARS),
            warnings=one.extraction.warnings,
            diff=diff,
            is_best=best is not None and best.step == one.number,
        )


def render(config: Config, strategy: Strategy, state: State, task_folder: Path, number: int) -> tuple[str, Question]:
    """The prompt of a step, and what it was made of.

    Args:
        config: the run's configuration.
        strategy: the search, which chooses the template and what it shows.
        state: the state that the step starts from.
        task_folder: with definition.json, reference.py, reference/ and the earlier steps.
        number: the step.

    Raises:
        UserError: a template is missing, is no Jinja template, or names a variable that there is none of.
    """
    role = strategy.role(number, state)
    shown = [ShownAttempt.of(step(task_folder, one.step), state.best) for one in strategy.shown(number, state)]
    base = best = None
    edited = strategy.base(number, state)
    if edited is not None:
        base = ShownAttempt.of(step(task_folder, edited), state.best)
    if state.best is not None and state.best.correct:
        best = ShownAttempt.of(step(task_folder, state.best.step), state.best)
    reference = read_model(task_folder / "reference" / "reference.json", Reference)
    text = fill(
        f"{role}.md.j2",
        config,
        {
            "definition": json.loads(read_text(task_folder / "definition.json")),
            "reference_code": read_text(task_folder / "reference.py").strip("\n"),
            "reference": reference,
            "config": config,
            "step": number,
            "steps": strategy.steps,
            "attempts": shown,
            "base": base,
            "best": best,
        },
    )
    question = Question(role=role, base=base.step if base else None, shown=[one.step for one in shown])
    return text.strip("\n") + "\n", question


def fill(template: str, config: Config, context: dict[str, Any]) -> str:
    """Fill one template; a folder ``prompts_path`` of the user's own comes before the project's."""
    folders = [folder for folder in (config.prompts_path, TEMPLATES) if folder]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["axes"] = lambda axes: ", ".join(f"{axis}={value}" for axis, value in axes.items())
    environment.filters["us"] = lambda ms: f"{ms * 1e3:,.0f}" if ms >= 1 else f"{ms * 1e3:.4g}"
    environment.filters["times"] = lambda value: f"{value:.3g}x"
    try:
        return environment.get_template(template).render(context)
    except jinja2.TemplateNotFound as error:
        raise UserError(f"template {error.name!r} is in none of: {', '.join(map(str, folders))}") from None
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{error.filename}, line {error.lineno}: {error.message}") from None
    except jinja2.UndefinedError as error:
        raise UserError(f"template {template!r}: {error.message}") from None


def check_templates(config: Config) -> None:
    """Check the folder of the user's own templates, before a question is asked with others.

    Raises:
        UserError: it is missing, or holds none.
    """
    if config.prompts_path and not list(Path(config.prompts_path).glob("*.j2")):
        raise UserError(f"prompts_path: {config.prompts_path!r} must be a folder with templates (*.md.j2), it has none")


def template_files(config: Config) -> list[Path]:
    """The templates that prompts may be made of, for the code digest of the rule."""
    folders = [Path(folder) for folder in (TEMPLATES, config.prompts_path) if folder]
    return [file for folder in folders for file in sorted(folder.glob("*.j2"))]


def shorten(text: str, length: int) -> str:
    """A text's head and tail: the tail is longer, since that is where a traceback says what happened."""
    if len(text) <= length:
        return text
    head = length // 4
    return f"{text[:head]}\n[... {len(text) - length} characters left out ...]\n{text[len(text) - length + head :]}"
