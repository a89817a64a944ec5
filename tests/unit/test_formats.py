"""Files of earlier releases are read, files of later ones are refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY
from pydantic import BaseModel
from snakernel.errors import UserError
from snakernel.evaluation.solution import kernel_sha256
from snakernel.evaluation.verdict import Confirmation, Evaluation, Reference
from snakernel.exports.contest import Scores
from snakernel.extraction import Extraction
from snakernel.files import bring_back_times, migration, read_model, write_model, write_text
from snakernel.history import Step
from snakernel.llm.base import Answer, Prompt
from snakernel.search import State
from snakernel.summary import Summary

RESULTS = REPOSITORY / "tests" / "results"
MODELS = {
    "confirmation.json": Confirmation,
    "evaluation.json": Evaluation,
    "reference.json": Reference,
    "extraction.json": Extraction,
    "response.json": Answer,
    "prompt.json": Prompt,
    "best.json": State,
}
"""What a run reads. summary.json is not among them: it is made again of these whenever its code changes."""
RUNS = sorted(path for path in RESULTS.glob("*/*") if path.is_dir() and path.parent.name.isdigit())


class Third(BaseModel):
    """A file whose format was changed twice."""

    format_version: int = 3
    seconds: float


@migration(Third, 1)
def _renamed(values: dict) -> dict:
    values["duration_ms"] = values.pop("time_ms")
    return values


@migration(Third, 2)
def _in_seconds(values: dict) -> dict:
    values["seconds"] = values.pop("duration_ms") / 1000
    return values


@pytest.mark.parametrize(
    "values",
    [
        {"format_version": 1, "time_ms": 1500},
        {"format_version": 2, "duration_ms": 1500},
        {"format_version": 3, "seconds": 1.5},
        {"seconds": 1.5},
    ],
)
def test_an_old_file_is_brought_to_todays_format(tmp_path: Path, values: dict) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(values))
    assert read_model(path, Third) == Third(seconds=1.5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"format_version": 4, "seconds": 1}', r"file.json: has format_version 4, and this release reads up to 3"),
        ('{"format_version": 0, "seconds": 1}', r"file.json: has format_version 0, which this release cannot read"),
        ('{"format_version": "new", "seconds": 1}', r"file.json: format_version: .*'new'"),
        ('{"format_version": 2, "dura', r"file.json: Invalid JSON"),
        ("[]", r"file.json: "),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(UserError, match=told):
        read_model(path, Third)


def test_a_file_that_was_changed_is_named_and_refused(tmp_path: Path) -> None:
    """Also one that is still valid; and the journal's is told apart, since nobody can make that again."""
    path = tmp_path / "answers" / "file.json"
    write_model(path, Third(seconds=1.5))
    whole = path.read_text()
    assert read_model(path, Third) == Third(seconds=1.5)
    path.write_text(whole.replace("1.5", "0.5"))
    with pytest.raises(UserError, match="answers/file.json: is not what was written.*put it back from a copy"):
        read_model(path, Third)
    for size in range(len(whole) - 2):
        (tmp_path / "file.json").write_text(whole[:size])
        with pytest.raises(UserError, match="file.json: .*snakemake --forcerun"):
            read_model(tmp_path / "file.json", Third)


def test_a_kernel_that_was_changed_is_named_and_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "extraction.json", Extraction(kind="kernel", kernel_sha256=kernel_sha256("x = 1\n")))
    write_text(tmp_path / "kernel.py", "x = 1\n")
    assert Step(tmp_path).kernel == "x = 1\n"
    write_text(tmp_path / "kernel.py", "x = 2\n")
    with pytest.raises(UserError, match="kernel.py: is not what was made of the answer.*snakemake --forcerun"):
        _ = Step(tmp_path).kernel


@pytest.mark.parametrize("kind", [*MODELS.values(), Scores, Summary])
def test_every_file_has_a_version(kind: type[BaseModel]) -> None:
    assert kind.model_fields["format_version"].default >= 1


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}-{run.name}")
def test_results_of_an_earlier_release_are_read(tmp_path: Path, run: Path) -> None:
    """Every file, and by the scripts: the summary, the next step's prompt, an export."""
    results = tmp_path / "results" / run.name
    shutil.copytree(run, results)
    for path in results.rglob("*.json"):
        kind = Answer if "answers" in path.parts else MODELS.get(path.name)
        if kind is not None:
            write_model(tmp_path / "again.json", read_model(path, kind))
    write_text(tmp_path / "tasks.txt", "rmsnorm, rmsnorm_h256\n")
    (tmp_path / "datasets").symlink_to(REPOSITORY / "datasets")
    config = ["--config", str(results / "config.yaml")]
    task = ["--task-folder", str(results / "rmsnorm_rmsnorm_h256")]
    for command in (
        ["summarize.py", *config, "--show"],
        ["propose.py", *config, *task, "--step", "3", "--only-prompt"],
        ["export_trace.py", *config, "--out", str(tmp_path / "export")],
        ["export_baseline_layout.py", *config, "--out", str(tmp_path / "layout")],
    ):
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / "scripts" / command[0]), *command[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "export").rglob("*.json"))) == 1
    (layout,) = (tmp_path / "layout").glob("*_mini_2_*/rmsnorm_rmsnorm_h256")
    assert (layout / "global_best_kernel_2.py").exists()
    if run.name == "evolve":
        assert json.loads((layout / "proposal_2_log.json").read_text())["context"] == {"recent": [1], "elite": []}
    else:
        assert (layout / "tune_0_2_prompt.txt").exists()


def test_files_of_the_future_are_of_now(tmp_path: Path) -> None:
    """What a clock that was set back leaves; the others keep their times."""
    old, new = tmp_path / "old.json", tmp_path / "task" / "new.json"
    for path, shift in ((old, -86_400), (new, 86_400)):
        write_text(path, "{}")
        os.utime(path, (time.time() + shift,) * 2)
    before = old.stat().st_mtime
    assert bring_back_times(tmp_path) == 1
    assert (old.stat().st_mtime, bring_back_times(tmp_path)) == (before, 0)
