"""The state of the search after a step: the state before it and the step's verdict, folded by the strategy."""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.config import read_config
from snakernel.errors import run_main
from snakernel.files import write_model
from snakernel.history import step
from snakernel.search import create_strategy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--task-folder", type=Path, required=True)
    parser.add_argument("--step", type=int, required=True)
    arguments = parser.parse_args()
    strategy = create_strategy(read_config(arguments.config), arguments.task_folder.name)
    current = step(arguments.task_folder, arguments.step)
    before = strategy.reads(arguments.step)
    state = step(arguments.task_folder, before).state if before else strategy.start()
    state = strategy.update(state, current.attempt())
    write_model(current.folder / "best.json", state)
    print(f"best so far: step {state.best.step}, score {state.best.score}" if state.best else "no attempt yet")


if __name__ == "__main__":
    run_main(main)
