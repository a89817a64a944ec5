"""Merge the summaries of several runs over different tasks into one table; with --out also merged.csv and merged.json.

python scripts/merge_summaries.py results/part_1 results/part_2 --out merged
"""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.errors import run_main
from snakernel.files import write_model, write_text
from snakernel.summary import merge_summaries, print_summary, summary_csv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.csv, with the run of each task")
    arguments = parser.parse_args()
    summary = merge_summaries(arguments.runs)
    table = None
    if arguments.out is not None:
        table = arguments.out.with_name(f"{arguments.out.name}.csv")
        write_model(arguments.out.with_name(f"{arguments.out.name}.json"), summary)
        write_text(table, summary_csv(summary))
    print_summary(summary, table)


if __name__ == "__main__":
    run_main(main)
