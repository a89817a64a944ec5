"""Write a step's prompt: what will be asked, or, where the step is answered already, what was asked.

Nobody is asked here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.config import read_config
from snakernel.errors import run_main
from snakernel.files import write_model, write_text
from snakernel.history import step
from snakernel.llm.journal import Journal
from snakernel.prompts import render
from snakernel.search import create_strategy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--task-folder", type=Path, required=True)
    parser.add_argument("--step", type=int, required=True)
    parser.add_argument("--out", type=Path, help="prompt.md, and prompt.json beside it; default: standard output")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    task = arguments.task_folder.name
    kept = Journal(arguments.task_folder.parent, task, arguments.step).read()
    if kept is not None:
        text, question = kept.request.prompt, kept.request.question
    else:
        strategy = create_strategy(config, task)
        before = strategy.reads(arguments.step)
        state = step(arguments.task_folder, before).state if before else strategy.start()
        text, question = render(config, strategy, state, arguments.task_folder, arguments.step)
    if arguments.out is None:
        print(text, end="")
    else:
        write_text(arguments.out, text)
        write_model(arguments.out.with_suffix(".json"), question)


if __name__ == "__main__":
    run_main(main)
