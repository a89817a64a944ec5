"""A step's proposal: its prompt, the model's answer, and the kernel in it."""

from __future__ import annotations

from pathlib import Path

from snakernel.config import Config
from snakernel.errors import UserError
from snakernel.files import read_model, write_model, write_text
from snakernel.history import step, step_folder
from snakernel.kernel import extract_kernel
from snakernel.llm.asking import ask_step
from snakernel.llm.base import Prompt, Question
from snakernel.llm.journal import Journal
from snakernel.prompts import find_lessons, render
from snakernel.search import State, create_strategy
from snakernel.skipping import NotAsked, skip_kernel, skip_proposal, stop_reason


def propose(config: Config, task_folder: Path, number: int, state: Path | None) -> None:
    """Make all of a step's files up to its kernel; they may say why the step was not asked.

    Args:
        config: the run's configuration.
        task_folder: the task's folder.
        number: the step.
        state: best.json that the step starts from; None: as the search has it.

    Raises:
        UserError: a file of the run or a template is missing or damaged, or nobody could be asked.
    """
    folder = step_folder(task_folder, number)
    try:
        text, question = prompt(config, task_folder, number, state)
    except NotAsked as why:
        return skip_proposal(folder, str(why))
    write_text(folder / "prompt.md", text)
    write_model(folder / "prompt.json", Prompt(**question.model_dump(), limits=config.limits))
    ask_step(config, task_folder, number)
    if why := step(task_folder, number).skipped:
        return skip_kernel(folder, why)
    extract_kernel(config, task_folder, number)


def prompt(config: Config, task_folder: Path, number: int, state: Path | None) -> tuple[str, Question]:
    """What a step will be asked, or, where it is answered already or in a batch, what it was asked.

    Nobody is asked here. The arguments and errors are those of :func:`propose`.

    Raises:
        NotAsked: it needs not be asked.
    """
    asked = Journal(task_folder.parent, task_folder.name, number).asked()
    if asked is not None:
        return asked.prompt, asked.question
    if why := stop_reason(state):
        raise NotAsked(why)
    strategy = create_strategy(config, task_folder.name)
    before = strategy.reads(number)
    if state is not None:
        start = read_model(state, State)
    else:
        start = step(task_folder, before).state if before else strategy.start()
    return render(config, strategy, start, task_folder, number, lessons_of(config, task_folder.name))


def lessons_of(config: Config, name: str) -> list[Path]:
    """The folders of the tasks whose best kernels a task's proposals are shown, by the run's task list."""
    from snakernel.dataset import read_tasks

    if config.lessons_from is None and not config.lessons_from_siblings:
        return []
    tasks = read_tasks(Path(config.tasks_path), config.dataset)
    task = next((one for one in tasks if one.name == name), None)
    if task is None:
        raise UserError(f"{config.tasks_path} names no task {name!r}, so its lessons are not known")
    return find_lessons(config, tasks, task)
