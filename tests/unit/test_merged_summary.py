"""Several runs over different tasks in one table."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from snakernel.files import read_model, write_model
from snakernel.summary import MergedSummary, Summary
from synthetic_run import make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run of three tasks; and one of another, which was finished, got more steps and is not finished now."""
    folder = tmp_path_factory.mktemp("runs")
    first = make_run(folder / "one", tasks=3, steps=2, workloads=1).results
    other = make_run(folder / "two", tasks=1, steps=2, workloads=1).results
    summary = read_model(other / "summary.json", Summary)
    summary.tasks[0].task = "rmsnorm_other"
    write_model(other / "summary.json", summary)
    summary.tasks[0].status, summary.tasks[0].reason = "unfinished", "step 3 was not run"
    summary.tasks[0].best_speedup, summary.tasks[0].cost_usd = 100.0, 0.25
    write_model(other / "summary.partial.json", summary)
    return [first, other]


def merge(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, str(REPOSITORY / "scripts" / "merge_summaries.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_all_tasks_are_in_one_table_with_their_runs(runs: list[Path], tmp_path: Path) -> None:
    done = merge(*runs, "--out", tmp_path / "all")
    assert done.returncode == 0, done.stderr
    first = read_model(runs[0] / "summary.json", Summary)
    merged = read_model(tmp_path / "all.json", MergedSummary)
    assert [(row.run, row.task) for row in merged.tasks] == [
        *((str(runs[0]), row.task) for row in first.tasks),
        (str(runs[1]), "rmsnorm_other"),
    ]
    assert merged.total_count == 4 and not merged.complete
    assert merged.sum_speedup == pytest.approx(first.sum_speedup + 100)
    assert merged.average_speedup == pytest.approx(merged.sum_speedup / 4)
    assert merged.cost_usd == pytest.approx(first.cost_usd + 0.25)
    with (tmp_path / "all.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["run"] for line in lines] == [row.run for row in merged.tasks]
    assert [line["task"] for line in lines] == [row.task for row in merged.tasks]
    assert "total count 4" in done.stdout and "rmsnorm_other: unfinished: step 3 was not run" in done.stdout


def test_a_task_of_two_runs_is_an_error_that_names_both(runs: list[Path], tmp_path: Path) -> None:
    again = make_run(tmp_path, tasks=1, steps=2, workloads=1).results
    done = merge(*runs, again, "--out", tmp_path / "all")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: rmsnorm_rmsnorm_test_1: is a task of {runs[0]} and of {again};")
    assert not list(tmp_path.glob("all*"))


def test_a_run_without_a_summary_is_an_error(runs: list[Path], tmp_path: Path) -> None:
    done = merge(runs[0], tmp_path / "none")
    assert done.returncode == 1 and f"{tmp_path / 'none'}: has no summary.json" in done.stderr
