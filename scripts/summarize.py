"""Summarise a run: summary.json and summary.csv; with --show the table on the terminal, and, while a task is not done,
summary.partial.json and summary.partial.csv."""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.config import read_config
from snakernel.dataset import read_tasks
from snakernel.errors import run_main
from snakernel.files import write_model, write_text
from snakernel.summary import print_report, print_summary, summarize, summary_csv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--show", action="store_true", help="print the table of what there is so far")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    summary = summarize(config, read_tasks(Path(config.tasks_path), config.dataset))
    # While a task is not done, the files have names of their own: the workflow's own are made of all tasks.
    whole = config.results / "summary"
    partial = config.results / "summary.partial"
    if not arguments.show or not summary.complete:
        place = partial if arguments.show else whole
        write_model(place.with_name(f"{place.name}.json"), summary)
        write_text(place.with_name(f"{place.name}.csv"), summary_csv(summary))
    if summary.complete:
        place = whole
        for suffix in (".json", ".csv"):
            partial.with_name(f"{partial.name}{suffix}").unlink(missing_ok=True)
    if arguments.show:
        print_summary(summary, place.with_name(f"{place.name}.csv"))
        print_report(summary, config.results)


if __name__ == "__main__":
    run_main(main)
