"""The pages in a real browser, headless, with the network off: drawn, sortable, accessible, quick. `make test-looks`.

Where SNAKERNEL_PICTURES names a folder, a picture of each page at laptop and phone width is put there to be looked at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from snakernel.report.comparison import compare_runs, comparison_page
from synthetic_run import make_run
from workflow.running import Project

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-looks does it")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe is not installed: make test-looks does it"
)
pytestmark = [
    pytest.mark.looks,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]
LAPTOP, PHONE = (1280, 800), (390, 844)
TASK = "rmsnorm_rmsnorm_test_1"
CUT_OFF = """[...document.querySelectorAll('.chart svg')].flatMap((svg) => {
  const place = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter((text) => {
    const own = text.getBoundingClientRect();
    return own.left < place.left - 1 || own.right > place.right + 1 || own.bottom > place.bottom + 1;
  }).map((text) => text.textContent);
})"""
"""Texts of plots that reach out of them."""
WIDER = "[...document.querySelectorAll('.scroll')].filter((place) => place.scrollWidth > place.clientWidth).length"
"""How many tables are wider than their place."""


@dataclass
class Tab:
    """A tab, and what went wrong in it."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: Path, fragment: str = "") -> None:
        """Open a page of this machine and wait until its plots are there."""
        self.page.goto(f"{path.as_uri()}{fragment}")

    def frame(self, selector: str = "#overview") -> Any:
        """The document that holds the overview: the page itself, or a frame of Snakemake's report."""
        for _ in range(200):
            for frame in self.page.frames:
                if frame.query_selector(selector):
                    return frame
            self.page.wait_for_timeout(25)
        raise AssertionError(f"no {selector} in {[frame.url[:80] for frame in self.page.frames]}; {self.errors}")

    def drawn(self, frame: Any) -> int:
        """How many plots the document shows; each is drawn, with marks in it."""
        frame.wait_for_function("[...document.querySelectorAll('.chart')].every(c => c.dataset.state === 'drawn')")
        marks = frame.eval_on_selector_all(
            ".chart",
            "charts => charts.map(c => c.querySelectorAll('svg .mark-symbol path, svg .mark-line path').length)",
        )
        assert all(marks), marks
        assert frame.evaluate(CUT_OFF) == []
        return len(marks)

    def tooltip(self, frame: Any) -> None:
        """A plot's point tells its values, beside the pointer."""
        point = frame.locator(".chart:visible svg .mark-symbol path").last
        point.scroll_into_view_if_needed()
        place = point.bounding_box()
        self.page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
        tip = frame.locator("#tip")
        tip.wait_for()
        assert "speedup" in tip.inner_text()
        shown = tip.bounding_box()
        assert abs(shown["y"] - place["y"]) < 200 and shown["x"] + shown["width"] <= self.page.viewport_size["width"]

    def check(self) -> None:
        """No error on the console, and nothing asked of any network."""
        assert self.errors == []
        assert [url for url in self.requests if not url.startswith(("file:", "data:", "blob:", "about:"))] == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium."""
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(params=[LAPTOP, PHONE], ids=["laptop", "phone"])
def tab(browser: Any, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A tab without a network."""
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True)
    found = Tab(context.new_page())
    found.page.on("console", lambda message: found.errors.append(message.text) if message.type == "error" else None)
    found.page.on("pageerror", lambda error: found.errors.append(str(error)))
    found.page.on("request", lambda asked: found.requests.append(asked.url))
    yield found
    context.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout with a run of six tasks of eight steps, its page and Snakemake's report of it."""
    project = Project.create(tmp_path_factory.mktemp("pages") / "project")
    make_run(project.folder, tasks=6, steps=8, workloads=6, run="looks")
    report(project)
    return project


def report(project: Project) -> Path:
    """Make both reports of a run that lies there; returns Snakemake's."""
    config = str(project.folder / "results" / "looks" / "config.yaml")
    subprocess.run([sys.executable, "scripts/write_report.py", "--config", config], cwd=project.folder, check=True)
    project.snakemake("--report", "report.html")
    return project.folder / "report.html"


def picture(tab: Tab, name: str) -> None:
    """Keep a picture, where one is asked for."""
    folder = os.environ.get("SNAKERNEL_PICTURES")
    if folder:
        width = tab.page.viewport_size["width"]
        tab.page.screenshot(path=str(Path(folder) / f"{name}-{width}.png"), full_page=True)


def serious(tab: Tab) -> list[str]:
    """What axe finds serious or critical on the page."""
    found = axe.Axe().run(tab.page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def fits(frame: Any) -> bool:
    """Whether the document is no wider than the window."""
    return frame.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_page(project: Project, tab: Tab) -> None:
    tab.open(project.folder / "results" / "looks" / "report" / "index.html")
    frame = tab.frame()
    assert tab.drawn(frame) == 3
    assert fits(frame)
    assert tab.page.viewport_size["width"] < 1000 or frame.evaluate(WIDER) == 0
    assert serious(tab) == []
    picture(tab, "overview")
    tab.tooltip(frame)
    frame.click(f'a[data-page="{TASK}"]')
    assert frame.inner_text("#task h1") == TASK
    assert tab.drawn(frame) == 6
    assert fits(frame)
    assert tab.page.viewport_size["width"] < 1000 or frame.evaluate(WIDER) == 0
    assert serious(tab) == []
    picture(tab, "task")
    tab.page.go_back()
    assert frame.is_visible("#overview") and not frame.is_visible("#task")
    tab.check()


def test_a_task_has_an_address(project: Project, tab: Tab) -> None:
    tab.open(project.folder / "results" / "looks" / "report" / "index.html", f"#{TASK}")
    assert tab.frame("#task h1").inner_text("#task h1") == TASK


def test_snakemakes_report(project: Project, tab: Tab) -> None:
    """The overview is the first thing that it shows; its links work; nothing else is wrong."""
    tab.open(project.folder / "report.html")
    frame = tab.frame()
    assert frame != tab.page.main_frame
    assert tab.drawn(frame) == 3
    assert fits(frame)
    width = tab.page.viewport_size["width"]
    assert width < 1000 or frame.evaluate(WIDER) == 0
    assert frame.evaluate("window.innerWidth") >= min(width, 390) * 0.9
    picture(tab, "snakemake-report")
    tab.tooltip(frame)
    frame.click(f'a[data-page="{TASK}"]')
    assert tab.drawn(frame) == 6
    frame.click('#task a[data-page=""]')
    assert frame.is_visible("#overview")
    tab.check()


def test_the_table_is_sorted_and_filtered_by_keyboard(project: Project, tab: Tab) -> None:
    tab.open(project.folder / "results" / "looks" / "report" / "index.html")
    frame = tab.frame()

    def column(number: int) -> list[float]:
        cells = frame.eval_on_selector_all(
            f"#tasks tbody td:nth-child({number})", "cells => cells.map(c => Number(c.dataset.value))"
        )
        return list(cells)

    for expected in (True, False):
        frame.focus("#tasks th:nth-child(3) button")
        tab.page.keyboard.press("Enter")
        assert column(3) == sorted(column(3), reverse=expected)
        head = "ascending" if not expected else "descending"
        assert frame.get_attribute("#tasks th:nth-child(3)", "aria-sort") == head
    frame.fill("#filter-text", "test_3")
    assert frame.eval_on_selector_all("#tasks tbody tr:not([hidden]) a", "links => links.map(a => a.textContent)") == [
        "rmsnorm_rmsnorm_test_3"
    ]
    assert frame.inner_text("#filter-count") == "1 shown"
    tab.check()


def test_the_live_page_and_a_comparison(project: Project, tab: Tab, tmp_path: Path) -> None:
    from snakernel.config import read_config
    from snakernel.dataset import read_tasks
    from snakernel.report.live import write_live_page
    from snakernel.report.monitor import Monitor

    config = read_config(project.folder / "results" / "looks" / "config.yaml")
    monitor = Monitor.of(config, read_tasks(Path(config.tasks_path), config.dataset))
    monitor.jobs_planned = 10
    write_live_page(monitor)
    tab.open(config.results / "live.html")
    assert tab.page.locator("svg.spark").count() > 0
    assert fits(tab.page.main_frame) and serious(tab) == []
    picture(tab, "live")
    other = make_run(tmp_path, tasks=6, steps=8, workloads=6, run="other", seed=1)
    page = tmp_path / "comparison.html"
    page.write_text(comparison_page(compare_runs([config.results, other.results])))
    tab.open(page)
    assert tab.drawn(tab.frame()) == 1
    assert fits(tab.page.main_frame) and serious(tab) == []
    picture(tab, "comparison")
    tab.check()


@pytest.mark.parametrize("tab", [LAPTOP], indirect=True)
def test_forty_tasks_of_25_steps(tab: Tab, tmp_path: Path) -> None:
    """Under 10 MB, and drawn; benchmarks/report_size.py says how long that takes."""
    project = Project.create(tmp_path / "project")
    make_run(project.folder, tasks=40, steps=25, workloads=20, run="looks")
    path = report(project)
    assert path.stat().st_size < 10e6
    tab.open(path)
    frame = tab.frame()
    assert tab.drawn(frame) == 3
    assert frame.locator("#tasks tbody tr").count() == 40
    tab.check()
