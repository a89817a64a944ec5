"""Export a run's kernels and verdicts as FlashInfer-Trace: solutions/ and traces/, ready to be copied into a dataset.

Which kernels: export_kernels (best, correct, all); under which author's name: export_author.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.config import read_config
from snakernel.dataset import read_tasks
from snakernel.errors import run_main
from snakernel.exports import finished_tasks, new_folder
from snakernel.exports.trace import write_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    folder = new_folder(arguments.out)
    for found in finished_tasks(config, read_tasks(Path(config.tasks_path), config.dataset)):
        print(f"{found.task.name}: {write_task(folder, found, config)} kernels")


if __name__ == "__main__":
    run_main(main)
