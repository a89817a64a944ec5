"""Size of a large run's report and the time until a browser shows it.

    python benchmarks/report_size.py [--tasks 40] [--steps 25] [--workloads 20]

Makes the files of such a run (tests/synthetic_run.py; nobody is asked, nothing is judged), writes its report page and
Snakemake's report of it, and opens both in headless Chromium with the network off: until the last plot of the overview
is drawn. Prints one JSON object. Needs what `make test-looks` needs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "scripts")]

DRAWN = (
    "document.querySelectorAll('#overview .chart').length > 0 && "
    "[...document.querySelectorAll('#overview .chart')].every((chart) => chart.dataset.state === 'drawn')"
)


def seconds_to_open(path: Path) -> float:
    """Seconds from the call until the overview's plots are drawn, wherever in the page it is."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as driver:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        page.goto("about:blank")
        begun = time.perf_counter()
        page.goto(path.as_uri(), wait_until="commit")
        while True:
            for frame in page.frames:
                try:
                    if frame.evaluate(DRAWN):
                        return time.perf_counter() - begun
                except Error:
                    continue  # the frame is being replaced
            page.wait_for_timeout(10)


def main() -> None:
    from synthetic_run import make_run
    from workflow.running import Project

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--workloads", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Project.create(Path(folder) / "project")
        config = make_run(project.folder, arguments.tasks, arguments.steps, arguments.workloads, run="large")
        written = time.perf_counter()
        subprocess.run(
            [sys.executable, "scripts/write_report.py", "--config", str(config.results / "config.yaml")],
            cwd=project.folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        reported = time.perf_counter()
        project.snakemake("--report", "report.html")
        ended = time.perf_counter()
        page, report = config.results / "report" / "index.html", project.folder / "report.html"
        figures = {
            **vars(arguments),
            "write_report_s": reported - written,
            "snakemake_report_s": ended - reported,
            "page_mb": page.stat().st_size / 1e6,
            "report_mb": report.stat().st_size / 1e6,
            "page_opened_s": seconds_to_open(page),
            "report_opened_s": seconds_to_open(report),
        }
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
