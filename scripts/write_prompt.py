"""Write a step's prompt: what will be asked, or, where the step is answered already or in a batch, what was asked.

Nobody is asked here.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from snakernel.errors import UserError, run_main
from snakernel.skipping import NotAsked, is_begun, skip_prompt, stop_reason

if TYPE_CHECKING:
    from snakernel.config import Config


def main() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--task-folder", type=Path, required=True)
    parser.add_argument("--step", type=int, required=True)
    parser.add_argument(
        "--state", type=Path, nargs="?", help="best.json that the step starts from; default: as the search has it"
    )
    parser.add_argument(
        "--lessons",
        type=Path,
        nargs="*",
        metavar="FOLDER",
        help="finished tasks whose best kernels a proposal is shown; default: as configured",
    )
    parser.add_argument("--out", type=Path, help="prompt.md, and prompt.json beside it; default: standard output")
    arguments = parser.parse_args()
    task = arguments.task_folder.name
    why = stop_reason(arguments.state) if arguments.out else None
    if why and not is_begun(arguments.task_folder, arguments.step):
        return skip_prompt(arguments.out, why)
    from snakernel.worker import run_in_worker  # here and below: a step that is skipped is not to wait for it

    if (code := run_in_worker(arguments.config)) is not None:
        return code
    from snakernel.config import read_config
    from snakernel.files import read_model, write_model, write_text
    from snakernel.history import step
    from snakernel.llm.base import Prompt
    from snakernel.llm.journal import Journal
    from snakernel.prompts import render
    from snakernel.search import State, create_strategy

    config = read_config(arguments.config)
    asked = Journal(arguments.task_folder.parent, task, arguments.step).asked()
    if why and asked is None:
        return skip_prompt(arguments.out, why)
    if asked is not None:
        text, question = asked.prompt, asked.question
    else:
        strategy = create_strategy(config, task)
        before = strategy.reads(arguments.step)
        if arguments.state:
            state = read_model(arguments.state, State)
        else:
            state = step(arguments.task_folder, before).state if before else strategy.start()
        try:
            lessons = configured_lessons(config, task) if arguments.lessons is None else arguments.lessons
            text, question = render(config, strategy, state, arguments.task_folder, arguments.step, lessons)
        except NotAsked as reason:
            if arguments.out:
                return skip_prompt(arguments.out, str(reason))
            raise UserError(f"this step needs not be asked: {reason}") from None
    if arguments.out is None:
        print(text, end="")
    else:
        write_text(arguments.out, text)
        write_model(arguments.out.with_suffix(".json"), Prompt(**question.model_dump(), limits=config.limits))


def configured_lessons(config: Config, name: str) -> list[Path]:
    """By hand: the lessons of a task, by the run's task list."""
    from snakernel.dataset import read_tasks
    from snakernel.prompts import find_lessons

    if config.lessons_from is None and not config.lessons_from_siblings:
        return []
    tasks = read_tasks(Path(config.tasks_path), config.dataset)
    task = next((one for one in tasks if one.name == name), None)
    if task is None:
        raise UserError(f"{config.tasks_path} names no task {name!r}; name its lessons with --lessons")
    return find_lessons(config, tasks, task)


if __name__ == "__main__":
    run_main(main)
