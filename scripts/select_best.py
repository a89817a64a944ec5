"""The state of the search after a step: the state after the step before it, and the verdict, folded by the strategy."""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.errors import run_main
from snakernel.files import write_model
from snakernel.skipping import skip_reason, skip_state


def main() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--task-folder", type=Path, required=True)
    parser.add_argument("--step", type=int, required=True)
    parser.add_argument("--state", type=Path, nargs="?", help="best.json of the step before; none: the empty state")
    arguments = parser.parse_args()
    folder = arguments.task_folder / f"step_{arguments.step}"
    skipped = skip_reason(folder)
    if skipped and arguments.state:
        return skip_state(arguments.state, arguments.step, skipped, folder / "best.json")
    from snakernel.worker import run_in_worker  # here and below: a step that is skipped is not to wait for it

    if (code := run_in_worker(arguments.config)) is not None:
        return code
    from snakernel.config import read_config
    from snakernel.files import read_model
    from snakernel.history import step
    from snakernel.search import State, create_strategy

    strategy = create_strategy(read_config(arguments.config), arguments.task_folder.name)
    state = read_model(arguments.state, State) if arguments.state else strategy.start()
    if skipped:
        state = state.model_copy(update={"step": arguments.step, "skipped": skipped})
    else:
        attempt = step(arguments.task_folder, arguments.step).attempt()
        state = strategy.update(state.model_copy(update={"skipped": None}), attempt)
    write_model(folder / "best.json", state)
    print(f"best so far: step {state.best.step}, score {state.best.score}" if state.best else "no attempt yet")


if __name__ == "__main__":
    run_main(main)
