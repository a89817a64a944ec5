"""The report's content: what a reader finds on the page, and what its numbers are made of. No browser here."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from snakernel.config import Config
from snakernel.dataset import read_tasks
from snakernel.files import read_model, write_model
from snakernel.llm.base import Answer
from snakernel.report import charts
from snakernel.report.data import RunReport, read_run, reason
from snakernel.report.page import report_page, start_page
from snakernel.report.provenance import provenance, ro_crate
from snakernel.report.starts import read_starts, record_start, start_of, workflow_version
from synthetic_run import DEVICE, make_run


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run of three tasks of six steps."""
    return make_run(tmp_path_factory.mktemp("report"), tasks=3, steps=6, workloads=3)


@pytest.fixture(scope="module")
def run(config: Config) -> RunReport:
    """What a report reads of it."""
    return read_run(config, read_tasks(Path(config.tasks_path), config.dataset))


@pytest.fixture(scope="module")
def page(run: RunReport) -> str:
    """Its page."""
    return report_page(run, provenance(run))


def task_page(page: str, task: str) -> str:
    """A task's part of the page."""
    packed = re.search(rf'id="page-{task}">(.*?)</script>', page)[1]
    return gzip.decompress(base64.b64decode(packed)).decode()


def answers(page: str, task: str) -> dict[str, str]:
    """What the page of a task answers to a reader, in plain text."""
    part = task_page(page, task)
    found = re.findall(r'<(\w+)[^>]* data-answer="([\w-]+)"[^>]*>(.*?)</\1>', part, re.DOTALL)
    return {name: re.sub(r"<[^>]+>", "", text) for _, name, text in found}


def test_who_has_only_the_page_can_check_it(page: str, run: RunReport) -> None:
    """Which model, from which prompt, at what cost, on which device, against which tolerance, and how to check it."""
    for task in run.tasks:
        assert task.best is not None
        told, answer = answers(page, task.name), task.best.row.answer
        assert told["model"] == "test-model-2026-01-01"
        assert told["prompt"] == str(task.best.row.source.folder / "prompt.md")
        assert told["prompt-text"].startswith(f"# Prompt of step {task.best.row.number} of {task.name}")
        assert f"${answer.cost_usd:.2g}" in told["cost"]
        for fact in (DEVICE.name, DEVICE.driver, DEVICE.uuid):
            assert fact in told["device"]
        assert "absolute 0.01 or relative 0.01" in told["tolerance"]
        assert f"--kernel {run.config.results}/{task.name}/best/kernel.py" in told["command"]


def test_the_page_needs_nothing_else(page: str) -> None:
    """No address that a browser would load."""
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL) + task_page(page, "rmsnorm_rmsnorm_test_1")
    assert not re.findall(r"""(?:src|href)=["'](?!#)[^"']+""", markup)
    assert "url(" not in markup and "@import" not in markup


def test_what_a_model_wrote_is_text(config: Config, tmp_path: Path) -> None:
    """A kernel, a prompt and an error with HTML in them change nothing but what is read."""
    hostile = make_run(tmp_path, tasks=1, steps=2, workloads=1, model="</script><script>alert(1)</script>")
    found = read_run(hostile, read_tasks(Path(hostile.tasks_path), hostile.dataset))
    page = report_page(found, provenance(found))
    for part in (page, task_page(page, found.tasks[0].name)):
        assert "<script>alert(1)" not in part
        assert "&lt;script&gt;alert(1)" in part


def test_what_each_of_several_models_has_brought(page: str, tmp_path: Path) -> None:
    """By who was asked and for what: one name of two services is two models."""
    assert 'id="models"' not in page  # one model is no news
    config = make_run(tmp_path, tasks=2, steps=4, workloads=1, models=["test-model", "openai:test-model"])
    tasks = read_tasks(Path(config.tasks_path), config.dataset)
    for task in tasks:
        for path in sorted((config.results / task.name).glob("step_*/response.json"))[1:]:
            write_model(path, read_model(path, Answer).model_copy(update={"api_type": "openai", "cost_usd": 0.25}))
    found = read_run(config, tasks)
    first, other = found.asked
    assert [(one.service, one.name, len(one.rows)) for one in (first, other)] == [
        ("claude", "test-model", 2),
        ("openai", "test-model", 6),
    ]
    assert other.cost_usd == pytest.approx(6 * 0.25)
    assert first.correct + other.correct == sum(row.correct for row in found.summary.tasks)
    assert first.tokens + other.tokens == found.summary.input_tokens + found.summary.output_tokens
    assert first.best + other.best == found.summary.correct_count == 2
    assert other.best == sum(task.best.row.number > 1 for task in found.tasks)
    told = report_page(found, provenance(found))
    table = re.search(r'id="models">(.*?)</table>', told, re.DOTALL)[1]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.partition("<tbody>")[2].split("</tr>")]
    assert [row[:3] for row in rows[:2]] == [["test-model", "claude", "2"], ["test-model", "openai", "6"]]
    steps = task_page(told, found.tasks[0].name)
    assert steps.count('<span class="soft">of openai</span>') == 3
    assert steps.count('<span class="soft">of claude</span>') == 1


def test_best_so_far_and_spent(run: RunReport) -> None:
    for task in run.tasks:
        speedups = [row.evaluation.speedup or 0 for row in task.rows]
        assert [row.best_speedup or 0 for row in task.rows] == [max(speedups[: n + 1]) for n in range(len(speedups))]
        assert task.rows[-1].spent_usd == pytest.approx(task.summary.cost_usd)
        assert task.rows[-1].spent_tokens == task.summary.input_tokens + task.summary.output_tokens


def test_the_lineage_ends_at_a_new_kernel(run: RunReport) -> None:
    for task in run.tasks:
        lineage = task.best.lineage
        assert lineage[0].row.number == task.summary.best_step
        assert [change.row.parent for change in lineage] == [*(change.row.number for change in lineage[1:]), None]
        for change in lineage[:-1]:
            assert f"+# an edit in step {change.row.number}" in change.diff or change.row.origin.startswith("rewrites")


def test_reasons_of_a_kind_are_one() -> None:
    wrong = "workload batch_size=5:\noutput 'y': {} of 87 elements ({} %) are wrong: y[2, 4] is {}, expected 0"
    assert reason(wrong.format(2, 0.02, -1.5)) == reason(wrong.format(31, 4, "nan"))
    assert reason("workload n=1:\nmain.py, line 3, in run: x\nValueError: a tile of 7 is not even\n") == (
        "ValueError: a tile of N is not even"
    )
    assert reason("") == ""


def test_fast_p(run: RunReport) -> None:
    speedups = [task.summary.best_speedup for task in run.tasks]
    assert charts.fast_p(run, 0) == 1
    assert charts.fast_p(run, min(speedups)) == pytest.approx(2 / 3)
    assert charts.fast_p(run, max(speedups)) == 0
    curve = charts.fast_p_curve(run)["data"]["values"]
    assert [point["share"] for point in curve] == pytest.approx([1, 1, 2 / 3, 1 / 3, 0], abs=1e-3)


def test_the_crate_is_flat_and_whole(run: RunReport) -> None:
    """Every entity that is named is there, and the files' hashes are those of the files."""
    graph = json.loads(ro_crate(run, provenance(run)))["@graph"]
    known = {entity["@id"] for entity in graph}
    assert len(known) == len(graph)

    def named(value: object) -> list[str]:
        if isinstance(value, dict):
            assert set(value) == {"@id"}, "entities must not be nested"
            return [value["@id"]]
        return [one for part in value for one in named(part)] if isinstance(value, list) else []

    external = {"https://w3id.org/ro/crate/1.1"}
    for entity in graph:
        for key, value in entity.items():
            if key not in ("@id", "@type"):
                assert set(named(value)) <= known | external
        if "File" in entity["@type"] and "sha256" in entity:
            content = (run.config.results / entity["@id"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entity["sha256"]
    assert {"./", "ro-crate-metadata.json", "#dataset"} <= known


def test_a_verdict_leads_to_the_start_that_was_in_force(tmp_path: Path) -> None:
    assert read_starts(tmp_path) == []
    for _ in range(2):
        record_start(tmp_path, "9.27.1", ["--cores", "2"])
    first, second = read_starts(tmp_path)
    assert first.scripts == second.scripts and first.version == workflow_version()
    assert start_of([first, second], second.time) == second
    assert start_of([first, second], first.time) == (first if first.time < second.time else second)
    assert start_of([first, second], "2000-01-01T00:00:00+00:00") is None
    with (tmp_path / "starts.jsonl").open("a") as file:
        file.write('{"time": "cut')
    assert read_starts(tmp_path) == [first, second]


def test_the_start_page_suits_docutils(page: str) -> None:
    """No line is over its limit, and none is blank, which would end the directive."""
    lines = start_page(page).splitlines()
    assert max(map(len, lines)) <= 10_000
    assert all(line.strip() for line in lines)


def test_a_run_that_has_not_begun_has_a_page(config: Config, tmp_path: Path) -> None:
    """The script works at any time; an unpaid task's page says that there is nothing yet."""
    fresh = tmp_path / "config.yaml"
    fresh.write_text((config.results / "config.yaml").read_text().replace("run: null", "run: fresh"))
    command = [sys.executable, str(REPOSITORY / "scripts" / "write_report.py"), "--config", str(fresh)]
    subprocess.run(command, check=True, capture_output=True)
    page = (Path(config.save_path) / "fresh" / "report" / "index.html").read_text()
    assert "Not complete yet" in page and "0 of 3" in page
