"""Prompts: Jinja templates, one a role, filled with what an expert would want to look at."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2

from snakernel.config import Config
from snakernel.dataset import Task
from snakernel.errors import UserError
from snakernel.evaluation.verdict import CompiledKernel, Evaluation, Reference, WorkloadResult
from snakernel.feedback import evenly, occupancy, shorten, slowest, without_noise
from snakernel.files import read_model, read_text
from snakernel.history import Step, step
from snakernel.llm.base import Question
from snakernel.search import Attempt, State, Strategy
from snakernel.search.models import choose
from snakernel.search.trials import given_tunables
from snakernel.search.tunables import TunablesError, read_tunables
from snakernel.skipping import NotAsked

TEMPLATES = Path(__file__).parents[2] / "prompts"
ERROR_CHARS = 3_000
DIFF_LINES = 120
IDEAS = 40
LESSONS = 2
KERNELS = 8


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
    duplicate_of: int | None = None
    """The step with the same program, where this one was not judged."""
    rows: list[WorkloadResult] = field(default_factory=list)
    """The workloads; of more than a prompt can bear those that lose most."""
    kernels: list[tuple[CompiledKernel, float | None]] = field(default_factory=list)
    """Its compiled kernels, each with the share of the device's warps that fit at once, where that is known."""

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
            error=shorten(without_noise(one.evaluation.error), ERROR_CHARS),
            warnings=one.extraction.warnings,
            diff=diff,
            is_best=best is not None and best.step == one.number,
            duplicate_of=one.extraction.duplicate_of,
            rows=slowest(one.evaluation.workloads),
            kernels=[
                (kernel, occupancy(kernel, one.evaluation.device.capability))
                for kernel in one.evaluation.kernels[:KERNELS]
            ],
        )


def render(
    config: Config,
    strategy: Strategy,
    state: State,
    task_folder: Path,
    number: int,
    lessons: Sequence[Path] = (),
) -> tuple[str, Question]:
    """The prompt of a step, and what it was made of.

    Args:
        config: the run's configuration.
        strategy: the search, which chooses the template and what it shows.
        state: the state that the step starts from.
        task_folder: with definition.json, reference.py, reference/ and the earlier steps.
        number: the step.
        lessons: folders of finished tasks whose best kernels a proposal is shown, where they are correct.

    Raises:
        UserError: a template is missing, is no Jinja template, or names a variable that there is none of.
    """
    role = strategy.role(number, state)
    if role == "sweep":
        return render_trial(config, strategy, state, task_folder, number)
    shown = [ShownAttempt.of(step(task_folder, one.step), state.best) for one in strategy.shown(number, state)]
    base = best = None
    edited = strategy.base(number, state)
    if edited is not None:
        base = ShownAttempt.of(step(task_folder, edited), state.best)
    if state.best is not None and state.best.correct:
        best = ShownAttempt.of(step(task_folder, state.best.step), state.best)
    definition = json.loads(read_text(task_folder / "definition.json"))
    learnt = [Lesson.of(folder) for folder in lessons] if role == "proposer" else []
    learnt = [one for one in learnt if one.evaluation.correct]
    model, scores = choose(config, state, strategy.seed(number))
    text = fill(
        f"{role}.md.j2",
        config,
        {
            "definition": definition,
            "reference_code": read_text(task_folder / "reference.py").strip("\n"),
            "reference": read_model(task_folder / "reference" / "reference.json", Reference),
            "config": config,
            "step": number,
            "steps": strategy.steps,
            "attempts": shown,
            "base": base,
            "best": best,
            "ideas": state.ideas[-IDEAS:],
            "lessons": learnt,
        },
    )
    question = Question(
        role=role,
        base=base.step if base else None,
        shown=[one.step for one in shown],
        ideas=[one.step for one in state.ideas[-IDEAS:]],
        lessons=[one.folder.name for one in learnt],
        model=model,
        model_scores=scores,
    )
    return text.strip("\n") + "\n", question


def render_trial(
    config: Config, strategy: Strategy, state: State, task_folder: Path, number: int
) -> tuple[str, Question]:
    """The same for a step that asks no model: the values that it tries.

    Raises:
        NotAsked: ``agent_type: sweep`` has tried everything.
        UserError: the given kernel cannot be swept.
    """
    definition = json.loads(read_text(task_folder / "definition.json"))
    base = strategy.base(number, state)
    try:
        if base is not None:
            tunables = read_tunables(step(task_folder, base).kernel)
        elif config.agent_type == "sweep":
            tunables = given_tunables(config, task_folder.name, definition["name"])
        else:
            tunables = None
        why = f"The kernel of step {base} declares no TUNABLES." if base else "There is no kernel yet."
    except TunablesError as error:
        tunables, why = None, f"The tunables of step {base} cannot be read: {error}."
    tried: list[Attempt] = []
    values = None
    if tunables is not None:
        why = f"All {tunables.size} combinations were tried."
        own = Attempt(step=number, compiled=False, correct=False, speedup=0.0, parameters=tunables.values)
        for one in strategy.shown(number, state):
            parameters = one.parameters or (tunables.values if one.step == base else None)
            if parameters is not None and parameters.keys() == tunables.space.keys():
                tried.append(one.model_copy(update={"parameters": parameters}))
        first = base is None and strategy.shape.lane(number) == 0
        values = tunables.values if first else strategy.suggest(number, tunables, tried or [own])
        if values is None and config.agent_type == "sweep":
            raise NotAsked(why.removesuffix("."))
    text = fill(
        "sweep.md.j2",
        config,
        {
            "definition": definition,
            "base": base,
            "values": values,
            "why": why,
            "space": tunables.space if tunables else {},
            "size": tunables.size if tunables else 0,
            "tried": tried,
        },
    )
    question = Question(
        role="sweep",
        base=base,
        shown=[one.step for one in tried],
        parameters=values,
        model=f"optuna {version('optuna')}",
    )
    return text.strip("\n") + "\n", question


@dataclass(frozen=True)
class Lesson:
    """The best kernel that was found for another task of the same op type."""

    folder: Path
    """The task's."""
    op_type: str
    definition: str

    @classmethod
    def of(cls, folder: Path) -> Lesson:
        """That of a finished task."""
        definition = json.loads(read_text(folder / "definition.json"))
        return cls(folder, definition["op_type"], definition["name"])

    @property
    def code(self) -> str:
        """Its source."""
        return read_text(self.folder / "best" / "kernel.py").strip("\n")

    @cached_property
    def evaluation(self) -> Evaluation:
        """The verdict that it got there."""
        return read_model(self.folder / "best" / "evaluation.json", Evaluation)


def find_lessons(config: Config, tasks: Sequence[Task], task: Task) -> list[Path]:
    """The folders of the tasks whose best kernels a task's proposals are shown, known before anything runs.

    First those of ``lessons_from`` that have a correct kernel, the same operator's and then those of the likest names;
    then, by ``lessons_from_siblings``, those of the likest names among ``tasks`` before this one, which may not be
    finished yet.

    Raises:
        UserError: a file of ``lessons_from`` cannot be read.
    """

    def likeness(one: Lesson | Task) -> float:
        return -difflib.SequenceMatcher(None, one.definition, task.definition).ratio()

    folders = []
    if config.lessons_from is not None:
        found = [one for one in read_lessons(Path(config.lessons_from)) if one.op_type == task.op_type]
        folders = [one.folder for one in sorted(found, key=likeness) if one.evaluation.correct]
    if config.lessons_from_siblings:
        siblings = [one for one in tasks[: tasks.index(task)] if one.op_type == task.op_type]
        folders += [config.results / one.name for one in sorted(siblings, key=likeness)]
    return folders[:LESSONS]


@cache
def read_lessons(folder: Path) -> list[Lesson]:
    """All tasks of a finished run, in the order of their names."""
    return [Lesson.of(path.parents[1]) for path in sorted(folder.glob("*/best/kernel.py"))]


def check_lessons(config: Config) -> None:
    """Check ``lessons_from``, before a question is asked without them.

    Raises:
        UserError: the folder holds no finished task, or is the run's own, which changes while it goes on.
    """
    if config.lessons_from is None:
        return
    folder = Path(config.lessons_from)
    if folder.resolve() == config.results.resolve():
        raise UserError(f"lessons_from: {str(folder)!r} is this run itself, name the folder of another one")
    if not read_lessons(folder):
        raise UserError(
            f"lessons_from: {str(folder)!r} must be the folder of a finished run, it holds no */best/kernel.py"
        )


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
    environment.filters["some"] = evenly
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
