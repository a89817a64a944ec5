"""Write a run's report page and its provenance: report/index.html, report/start.html and ro-crate-metadata.json.

Works at any time: of a run that is not complete, it shows what there is. Open report/index.html in a browser, or make
Snakemake's own report of it: snakemake --report report.html.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.config import read_config
from snakernel.dataset import read_tasks
from snakernel.errors import run_main
from snakernel.files import write_text
from snakernel.report.data import read_run
from snakernel.report.page import report_page, start_page
from snakernel.report.provenance import provenance, ro_crate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    run = read_run(config, read_tasks(Path(config.tasks_path), config.dataset))
    found = provenance(run)
    page = report_page(run, found)
    write_text(config.results / "report" / "index.html", page)
    write_text(config.results / "report" / "start.html", start_page(page))
    write_text(config.results / "ro-crate-metadata.json", ro_crate(run, found))
    print(f"{config.results / 'report' / 'index.html'}: {len(page) / 1e6:.2f} MB")


if __name__ == "__main__":
    run_main(main)
