"""Make the pictures of README.md from the demo's results: docs/pictures/*.png. `make screenshots` runs the demo first.

Needs Debian's chromium and what requirements-looks.txt names. The network is off.
"""

from __future__ import annotations

import io
import shutil
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))
RUN = Path("results/iterative_mini")
PICTURES = REPOSITORY / "docs" / "pictures"
TASK = "rmsnorm_rmsnorm_h256"


def terminal_html() -> str:
    """The live table of the demo's end, as it is at 100 columns."""
    import logging

    from rich.console import Console
    from snakernel.config import read_config
    from snakernel.dataset import read_tasks
    from snakernel.report.monitor import Monitor
    from snakernel.report.starts import read_starts
    from snakernel.report.terminal import Terminal

    config = read_config(RUN / "config.yaml")
    tasks = read_tasks(Path(config.tasks_path), config.dataset)
    terminal = Terminal(logging.StreamHandler(io.StringIO()), config, tasks)
    terminal.console = Console(file=io.StringIO(), record=True, width=100, height=24, force_terminal=True)
    terminal.monitor = Monitor.of(config, tasks)
    steps = sum(task.planned for task in terminal.monitor.tasks.values())
    terminal.monitor.jobs_done = terminal.monitor.jobs_planned = steps
    # The time of the run's last call, from its start to the last state of its live page.
    begun = datetime.fromisoformat(read_starts(RUN)[-1].time).timestamp()
    terminal.monitor.begun = time.time() - ((RUN / "live.html").stat().st_mtime - begun)
    terminal.console.print(terminal.table())
    return terminal.console.export_html(
        inline_styles=True,
        code_format='<pre style="font: 14px monospace; padding: 14px; margin: 0; display: inline-block">{code}</pre>',
    )


def main() -> None:
    from playwright.sync_api import sync_playwright

    if not (RUN / "report" / "index.html").exists():
        sys.exit(f"{RUN}/report/index.html: no such file; run `make demo` first")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no Chromium here: apt-get install chromium")
    PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1180, "height": 900}, offline=True)
        page: Any = context.new_page()
        address = (RUN / "report" / "index.html").resolve().as_uri()
        for name, fragment in (("overview", ""), ("task", f"#{TASK}")):
            page.goto("about:blank")
            page.goto(f"{address}{fragment}")
            place = "#task" if fragment else "#overview"
            page.wait_for_function(
                f"document.querySelectorAll('{place} .chart').length > 0 && "
                f"[...document.querySelectorAll('{place} .chart')].every((c) => c.dataset.state === 'drawn')"
            )
            page.screenshot(path=str(PICTURES / f"{name}.png"))
        page.set_content(terminal_html())
        page.locator("pre").screenshot(path=str(PICTURES / "terminal.png"))
        browser.close()
    print(f"{PICTURES}: {', '.join(sorted(path.name for path in PICTURES.glob('*.png')))}")


if __name__ == "__main__":
    main()
