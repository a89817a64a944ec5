"""Export a run in the layout of the contest's agent baseline: its tools, and its resume_from, read it."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path

from snakernel.baseline import write_config, write_task
from snakernel.config import read_config
from snakernel.dataset import read_tasks
from snakernel.errors import run_main
from snakernel.exports import finished_tasks, new_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--out", type=Path, required=True, help="a new folder: it gets the baseline's, with its name")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    out = new_folder(arguments.out)
    tasks = list(finished_tasks(config, read_tasks(Path(config.tasks_path), config.dataset)))
    begun = min((datetime.fromisoformat(found.steps[0].response.started) for found in tasks), default=None)
    time = f"_{begun:%Y%m%d-%H%M%S}" if begun else ""
    folder = out / f"{config.agent_type}_{config.test_source}_{config.total_steps}{time}"
    write_config(folder, config)
    for found in tasks:
        write_task(folder / found.task.name, found.definition, found.steps, found.best or found.steps[-1], config)
        print(f"{found.task.name}: {len(found.steps)} steps")
    print(folder)


if __name__ == "__main__":
    run_main(main)
