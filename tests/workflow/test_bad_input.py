"""Bad input: one clear sentence, a non-zero exit, nothing spent; where one task is bad, the others go on."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY

from workflow.running import Project

DECODE = "gqa_paged_decode_h8_kv2_d64_ps16"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A checkout in which nothing was run; two tasks of one step."""
    return Project.create(tmp_path / "project", total_steps=1)


def refusal(project: Project, *arguments: str, **environment: str) -> str:
    """The output of a run that must fail before it starts a job or asks anybody."""
    done = project.snakemake(*arguments, check=False, **environment)
    assert done.returncode != 0
    assert not (project.folder / "results" / "small" / "answers").exists()
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"total_step": 3}, "config: unknown key 'total_step' (did you mean 'total_steps'?)"),
        ({"total_steps": "many"}, "config: total_steps: Input should be a valid integer"),
        ({"eval_backend": "gpu"}, "eval_backend: Input should be 'local', 'cpu' or 'modal' (got 'gpu')"),
        ({"dataset_root": "nowhere"}, "nowhere: no FlashInfer-Trace dataset there"),
        ({"tasks_path": "none.txt"}, "none.txt: no such file"),
        ({"api_type": "openai", "model_name": "own", "max_cost": 1}, "max_cost: cannot be kept, as the price of model"),
    ],
)
def test_a_bad_configuration(project: Project, keys: dict[str, object], told: str) -> None:
    project.configure(**keys)
    assert told in refusal(project, "-n")


def test_a_bad_task_list(project: Project) -> None:
    (project.folder / "tasks.txt").write_text("rmsnorm, rmsnorm_h265\n")
    assert "no definition 'rmsnorm_h265'; did you mean 'rmsnorm_h256'?" in refusal(project, "-n")


def test_a_target_of_an_unknown_task(project: Project) -> None:
    assert "names no task 'no_such_task'" in refusal(project, "-n", "results/small/no_such_task/step_1/evaluation.json")


def test_no_key(project: Project) -> None:
    project.configure(api_type="claude", total_steps=1)
    told = refusal(project, ANTHROPIC_API_KEY="", ANTHROPIC_AUTH_TOKEN="")
    assert "ANTHROPIC_API_KEY and ANTHROPIC_AUTH_TOKEN are not set" in told
    assert "Traceback" not in told
    project.configure(models=["anthropic:a", "openai:b"], api_type="openai", total_steps=1)
    told = refusal(project, ANTHROPIC_API_KEY="", ANTHROPIC_AUTH_TOKEN="", OPENAI_API_KEY="", OPENAI_BASE_URL="")
    assert "ANTHROPIC_API_KEY and ANTHROPIC_AUTH_TOKEN are not set" in told and "OPENAI_API_KEY is not set" in told


def test_no_gpu(project: Project) -> None:
    project.configure(eval_backend="local", total_steps=1)
    told = refusal(project, CUDA_VISIBLE_DEVICES="")
    assert "eval_backend 'local' needs a CUDA device, and none is visible on this machine" in told
    assert "set eval_backend to 'cpu'" in told


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: _cut(data / "definitions" / "gqa_paged" / f"{DECODE}.json"), f"{DECODE}.json: Invalid JSON"),
        (lambda data: _pointer(next((data / "blob").rglob("*.safetensors"))), "run `git lfs pull`"),
        pytest.param(
            lambda data: next((data / "blob").rglob("*.safetensors")).unlink(),
            "which is not there",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda data: (data / "workloads" / "gqa_paged" / f"{DECODE}.jsonl").unlink(),
            f"{DECODE}.jsonl: no such file",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["definition cut", "blob is a pointer", "blob missing", "workloads missing"],
)
def test_one_bad_task_does_not_stop_the_others(project: Project, damage, told: str) -> None:
    data = project.folder / "data"
    shutil.copytree(REPOSITORY / "datasets" / "mini", data, ignore=shutil.ignore_patterns("answers"))
    (project.folder / "tasks.txt").write_text("gqa_paged\nrmsnorm, rmsnorm_h256\n")
    damage(data)
    project.configure(dataset_root="data", total_steps=1, max_workloads=None)
    done = project.snakemake(check=False)
    assert done.returncode != 0
    assert (project.results / "rmsnorm_rmsnorm_h256" / "best" / "kernel.py").exists()
    assert [path.parent.name for path in project.results.glob("answers/*/1.json")] == ["rmsnorm_rmsnorm_h256"]
    table = done.stdout
    assert f"gqa_paged_{DECODE}: failed: check_task: " in table
    assert told in table
    assert "Correct count 1, total count 2, accuracy 0.5" in table
    rows = (project.results / "summary.partial.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == ["failed", "done"]
    assert told in rows[1]


@pytest.mark.slow
def test_a_dataset_that_is_edited_while_it_is_read_is_read_again(project: Project) -> None:
    """Then what was made of it is not older than the edit."""
    data = project.folder / "data"
    shutil.copytree(REPOSITORY / "datasets" / "mini", data, ignore=shutil.ignore_patterns("answers"))
    project.configure(dataset_root="data")
    made = project.results / "rmsnorm_rmsnorm_h256" / "workloads.jsonl"
    target = str(made.relative_to(project.folder))
    project.snakemake(target)
    assert project.plan(target) == {}
    workloads = data / "workloads" / "rmsnorm" / "rmsnorm_h256.jsonl"
    workloads.write_text(workloads.read_text().replace('"batch_size": 1}', '"batch_size": 3}', 1))
    os.utime(workloads, (made.stat().st_mtime, made.stat().st_mtime))
    assert project.plan(target) == {"check_task": 1}
    project.snakemake(target)
    assert json.loads(made.read_text().splitlines()[0])["axes"]["batch_size"] == 3


def test_a_missing_recorded_answer_fails_its_task_only(project: Project) -> None:
    (project.folder / "replay" / "silu_and_mul_h384" / "1.md").unlink()
    done = project.snakemake(check=False)
    assert done.returncode != 0
    assert (
        "activation_silu_and_mul_h384: failed: propose of step 1: replay/silu_and_mul_h384/1.md: no recorded answer"
        in done.stdout
    )
    assert (project.results / "rmsnorm_rmsnorm_h256" / "best" / "kernel.py").exists()


@pytest.mark.slow
def test_an_empty_recorded_answer_fails_its_task_only(project: Project) -> None:
    (project.folder / "replay" / "silu_and_mul_h384" / "1.md").write_text("\n")
    done = project.snakemake(check=False)
    assert done.returncode != 0
    assert "replay/silu_and_mul_h384/1.md: the recorded answer is empty" in done.stdout
    assert len(project.journal()) == 1


def test_an_answer_without_code_is_a_verdict_and_the_next_prompt_says_so(project: Project) -> None:
    """It was paid for, and the search goes on from it."""
    (project.folder / "replay" / "rmsnorm_h256" / "1.md").write_text("I am sorry, I cannot do that.\n")
    (project.folder / "tasks.txt").write_text("rmsnorm, rmsnorm_h256\n")
    task = project.results / "rmsnorm_rmsnorm_h256"
    project.configure(total_steps=2)
    project.snakemake(str(task.relative_to(project.folder) / "step_2" / "prompt.md"))
    verdict = json.loads((task / "step_1" / "evaluation.json").read_text())
    assert (verdict["status"], verdict["compiled"], verdict["error"]) == (
        "COMPILE_ERROR",
        False,
        "the answer holds no code.",
    )
    assert "the answer holds no code" in (task / "step_2" / "prompt.md").read_text()


def _cut(path: Path) -> None:
    path.write_text(path.read_text()[: path.stat().st_size // 2])


def _pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
