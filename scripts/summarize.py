"""Summarise a run: summary.json and summary.csv, or, with --show, the table on the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.config import read_config
from snakernel.dataset import read_tasks
from snakernel.errors import run_main
from snakernel.files import read_model, write_model, write_text
from snakernel.summary import Summary, print_summary, summarize, summary_csv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--show", action="store_true", help="print the table of summary.json; nothing is written")
    parser.add_argument("--partial", action="store_true", help="print the table of what there is so far; likewise")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    if arguments.show:
        print_summary(read_model(config.results / "summary.json", Summary), config.results)
        return
    summary = summarize(config, read_tasks(Path(config.tasks_path), config.dataset))
    if arguments.partial:
        print_summary(summary, config.results)
        return
    write_model(config.results / "summary.json", summary)
    write_text(config.results / "summary.csv", summary_csv(summary))


if __name__ == "__main__":
    run_main(main)
