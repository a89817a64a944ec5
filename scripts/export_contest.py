"""Export a submission to the contest for each task that has a correct kernel, and score.json: the contest's score.

Each folder {definition}/ is a submission: config.toml, solution/triton/kernel.py and the packed solution.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.config import read_config
from snakernel.dataset import read_tasks
from snakernel.errors import run_main
from snakernel.exports import finished_tasks, new_folder
from snakernel.exports.contest import scores, write_submission
from snakernel.files import write_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    folder = new_folder(arguments.out)
    tasks = list(finished_tasks(config, read_tasks(Path(config.tasks_path), config.dataset)))
    for found in tasks:
        if found.best is None:
            print(f"{found.task.name}: no kernel is correct, so there is nothing to submit")
        else:
            print(f"{found.task.name}: {write_submission(folder / found.task.definition, found, config)}")
    record = scores(tasks)
    write_model(folder / "score.json", record)
    for one in record.definitions:
        value = "no score" if one.score is None else f"score {one.score:.4g}"
        print(f"{one.definition}: {value}{f' ({one.reason})' if one.reason else ''}")


if __name__ == "__main__":
    run_main(main)
