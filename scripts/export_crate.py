"""Export a run as an RO-Crate: one ZIP file with its inputs, prompts, answers, kernels and verdicts, described."""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.config import read_config
from snakernel.dataset import read_tasks
from snakernel.errors import run_main
from snakernel.exports import finished_tasks
from snakernel.exports.crate import write_crate
from snakernel.report.data import read_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--out", type=Path, required=True, help="the ZIP file")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    wanted = read_tasks(Path(config.tasks_path), config.dataset)
    tasks = list(finished_tasks(config, wanted))
    count = write_crate(arguments.out, config, tasks, read_run(config, wanted), Path(__file__).resolve().parents[1])
    print(f"{arguments.out}: {count} files of the run, {len(tasks)} tasks")


if __name__ == "__main__":
    run_main(main)
