"""Runs compared: the figures, their intervals, and what is said of runs that do not compare."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from snakernel.errors import UserError
from snakernel.evaluation.verdict import Evaluation
from snakernel.files import read_model, write_model
from snakernel.report.comparison import bootstrap, compare_runs, comparison_page, wilson
from snakernel.summary import Summary
from synthetic_run import make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of the same four tasks."""
    folder = tmp_path_factory.mktemp("compared")
    return [make_run(folder, tasks=4, steps=4, workloads=2, run=name, seed=n).results for n, name in enumerate("ab")]


def faster(run: Path, folder: Path, times: float) -> Path:
    """A copy of a run whose best kernels are ``times`` as fast."""
    shutil.copytree(run, folder)
    for path in folder.glob("*/best/evaluation.json"):
        verdict = read_model(path, Evaluation)
        for one in verdict.workloads:
            for key in ("median_ms", "low_ms", "high_ms"):
                setattr(one.latency, key, getattr(one.latency, key) / times)
        write_model(path, verdict)
    return folder


def test_a_run_that_is_twice_as_fast(runs: list[Path], tmp_path: Path) -> None:
    found = compare_runs([runs[0], faster(runs[0], tmp_path / "twice", 2)])
    first, second = found.runs
    assert first.times is None and second.common == 4
    assert (second.times.value, second.times.low, second.times.high) == pytest.approx((2, 2, 2))
    for task in found.tasks:
        assert task.times[0] is None
        assert task.times[1].value == pytest.approx(2)
        assert task.times[1].low < 2 < task.times[1].high


def test_a_run_against_itself_is_no_faster(runs: list[Path]) -> None:
    found = compare_runs([runs[1], runs[1]])
    assert found.runs[1].times.value == pytest.approx(1)
    assert found.runs[0].speedup == found.runs[1].speedup


def test_what_does_not_compare_is_told(runs: list[Path], tmp_path: Path) -> None:
    other = faster(runs[1], tmp_path / "other", 1)
    (other / "config.yaml").write_text((other / "config.yaml").read_text().replace("rtol: 0.01", "rtol: 0.5"))
    summary = read_model(other / "summary.json", Summary)
    summary.tasks = summary.tasks[1:]
    summary.tasks[0].device = "another GPU"
    summary.tasks[1].status = "failed"
    write_model(other / "summary.json", summary)
    told = "\n".join(compare_runs([runs[0], other]).warnings)
    for fact in (
        "different devices",
        "different tolerances",
        "b is not complete",
        "1 tasks are not in all",
        "only 3 tasks",
    ):
        assert fact in told


def test_bad_input_is_named(runs: list[Path], tmp_path: Path) -> None:
    for folders, told in (([runs[0]], "two or more"), ([runs[0], tmp_path], "holds no summary.json")):
        with pytest.raises(UserError, match=told):
            compare_runs(folders)


def test_intervals() -> None:
    half = wilson(5, 10)
    assert (half.low, half.high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 5).low == 0 and wilson(5, 5).high == 1
    sure, unsure = bootstrap([1.2, 1.21, 1.19, 1.2, 1.2]), bootstrap([0.5, 3, 0.8, 2, 1.1])
    assert sure.low <= sure.value <= sure.high and sure.high - sure.low < unsure.high - unsure.low
    assert unsure.low < 1 < unsure.high
    assert bootstrap([1.5, 2, 3]) == bootstrap([1.5, 2, 3])


def test_the_command(runs: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "comparison.html"
    command = [sys.executable, str(REPOSITORY / "scripts" / "compare.py"), *map(str, runs), "--out", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "times as fast" in done.stdout and "note: only 4 tasks" in done.stdout
    assert "a, b" in page.read_text() and page.read_text() == comparison_page(compare_runs(runs))
