"""Compare two or more runs over the tasks that all of them have: a table, and with --out a page.

    python scripts/compare.py results/iterative_mini results/evolve_mini --out comparison.html

The first run is what the others are compared with. What is compared are the best kernels' latencies, with 95 %
confidence intervals; runs that were measured on different devices are told of.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.errors import run_main
from snakernel.files import write_text
from snakernel.report.comparison import compare_runs, comparison_page, print_comparison


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--out", type=Path, help="write the page here")
    arguments = parser.parse_args()
    comparison = compare_runs(arguments.runs)
    print_comparison(comparison)
    if arguments.out is not None:
        write_text(arguments.out, comparison_page(comparison))
        print(f"Page: {arguments.out}")


if __name__ == "__main__":
    run_main(main)
