"""A model is never asked again for a step that is done, whatever changes; what is derived is made again where its code
or its inputs changed. Two tasks of three steps; in every case the recorded answers are taken away first, so that
whoever asks fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from llm_server import LLMServer, Reply
from snakernel.files import read_model
from snakernel.summary import Summary

from workflow.running import Project

STEP = "results/small/rmsnorm_rmsnorm_h256/step_2"
ENDS = {"confirm_best": 2, "export_best": 2, "summarize": 1, "write_report": 1, "all": 1}
SELECTIONS = {"select_best": 6, **ENDS}
VERDICTS = {"evaluate": 6, **SELECTIONS}
KERNELS = {"propose": 6, **VERDICTS}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished run."""
    project = Project.create(tmp_path_factory.mktemp("finished") / "project")
    project.snakemake()
    assert len(project.journal()) == 6
    assert project.plan() == {}
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of it that cannot ask."""
    project = finished.copy(tmp_path / "project")
    project.forbid_asking()
    return project


def touch(*names: str) -> Callable[[Project], None]:
    return lambda project: [os.utime(project.folder / name) for name in names] and None


def edit(name: str, old: str, new: str) -> Callable[[Project], None]:
    return lambda project: project.edit(name, old, new)


def append(name: str, text: str = "\n# changed\n") -> Callable[[Project], None]:
    def change(project: Project) -> None:
        path = project.folder / name
        path.write_text(path.read_text() + text)

    return change


def delete(*names: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        for name in names:
            path = project.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def renew_all_times(project: Project) -> None:
    """What git pull, clone or checkout may do to the sources."""
    for path in project.folder.rglob("*"):
        if "results" not in path.parts and ".snakemake" not in path.parts:
            os.utime(path)


def equal_all_times_and_forget(project: Project) -> None:
    """What some archives and copies do to everything, without .snakemake."""
    shutil.rmtree(project.folder / ".snakemake")
    now = time.time()
    for path in project.folder.rglob("*"):
        os.utime(path, (now, now))


def clean(project: Project) -> None:
    """Remove what can be made again."""
    command = [sys.executable, "scripts/clean_run.py", "results/small", "--logs", "--exports"]
    subprocess.run(command, cwd=project.folder, check=True, capture_output=True)
    assert not list(project.results.glob("*/reference/expected/*")) and not (project.results / "logs").exists()


def name_lessons(project: Project) -> None:
    """Let proposals be shown the best kernels of another run from now on."""
    shutil.copytree(project.results, project.folder / "results" / "other")
    project.configure(lessons_from="results/other")


CASES: dict[str, tuple[Callable[[Project], None], tuple[str, ...], dict[str, int]]] = {
    "template touched": (touch("prompts/tuner.md.j2"), (), {}),
    "template edited": (append("prompts/tuner.md.j2", "\nBe brief.\n"), (), {}),
    "propose's code edited": (append("scripts/propose.py"), (), {}),
    "the model layer edited": (append("scripts/snakernel/llm/base.py"), (), {}),
    "prompt's code edited": (append("scripts/snakernel/prompts.py"), (), {}),
    "propose's command edited": (
        edit("rules/propose.smk", "--step {wildcards.step}", "--step  {wildcards.step}"),
        (),
        KERNELS,
    ),
    "extraction's code edited": (append("scripts/snakernel/extraction.py"), (), KERNELS),
    "evaluate's code edited": (append("scripts/snakernel/evaluation/judge.py"), (), VERDICTS),
    "the search's code edited": (append("scripts/snakernel/search/iterative.py"), (), SELECTIONS),
    "temperature changed": (lambda project: project.configure(temperature=1.5), (), {}),
    "model changed": (lambda project: project.configure(model_name="another"), (), {}),
    "tolerance changed": (lambda project: project.configure(atol=0.02), (), VERDICTS),
    "memory changed": (lambda project: project.configure(max_memory_round=1), (), SELECTIONS),
    "lessons named": (name_lessons, (), {}),
    "an evaluation deleted": (delete(f"{STEP}/evaluation.json"), (), {}),
    "a response deleted": (delete(f"{STEP}/response.json"), (), {}),
    "--forcerun evaluate": (lambda project: None, ("--forcerun", "evaluate"), VERDICTS),
    "--forcerun propose": (lambda project: None, ("--forcerun", "propose"), KERNELS),
    "prompt touched": (touch(f"{STEP}/prompt.md"), (), {}),
    "prompt edited": (append(f"{STEP}/prompt.md", "more\n"), (), {}),
    "--forceall": (
        lambda project: None,
        ("--forceall",),
        {"check_task": 2, "measure_reference": 2, **KERNELS},
    ),
    "all sources' times renewed": (renew_all_times, (), {}),
    ".snakemake deleted": (delete(".snakemake"), (), {}),
    "all times equal, .snakemake deleted": (equal_all_times_and_forget, (), {}),
    "cleaned": (clean, (), {}),
    "cleaned, and judged again": (clean, ("--forcerun", "evaluate"), VERDICTS),
    "total_steps lowered": (
        lambda project: project.configure(total_steps=2),
        (),
        ENDS,
    ),
}


SLOW = ("extraction's code edited", "memory changed", "--forcerun propose", "cleaned, and judged again")
"""Cases that run much of what others run too."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in CASES]
)
def test_nothing_is_asked_again(project: Project, name: str) -> None:
    change, arguments, jobs = CASES[name]
    before = project.journal()
    change(project)
    assert project.plan(*arguments) == jobs
    if jobs:
        project.snakemake(*arguments)
        assert project.plan() == {}
    assert project.journal() == before


def test_more_steps_ask_for_the_new_ones_only(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    before = project.journal()
    for task in ("rmsnorm_h256", "silu_and_mul_h384"):
        for step in (1, 2, 3):
            (project.folder / "replay" / task / f"{step}.md").unlink()
    # What is configured now is for the steps to come: each answer says what made it.
    project.configure(total_steps=4, model_name="another", temperature=1.5)
    project.edit("prompts/tuner.md.j2", "\n", "\nA new line.\n")
    plan = project.plan()
    assert (plan["propose"], plan["evaluate"]) == (2, 2)
    project.snakemake()
    assert project.plan() == {}
    after = project.journal()
    assert len(after) == 8
    assert {name: after[name] for name in before} == before
    new = json.loads(after["rmsnorm_rmsnorm_h256/4.json"])["request"]
    assert (new["model"], new["temperature"], "A new line." in new["prompt"]) == ("another", 1.5, True)
    old = json.loads(after["rmsnorm_rmsnorm_h256/3.json"])["request"]
    assert (old["model"], old["temperature"], "A new line." in old["prompt"]) == ("recorded", 0.6, False)


def test_another_task_leaves_the_others_alone(project: Project) -> None:
    with (project.folder / "tasks.txt").open("a") as file:
        file.write("gemm\n")
    each = ("propose", "evaluate", "select_best")
    once = ("check_task", "measure_reference", "confirm_best", "export_best", "summarize", "write_report", "all")
    assert project.plan() == dict.fromkeys(once, 1) | dict.fromkeys(each, 3)


def test_a_copied_folder_goes_on_without_asking(finished: Project, tmp_path: Path) -> None:
    """cp -r without .snakemake: every time is new, in the order of the copy."""
    folder = tmp_path / "copied"
    subprocess.run(["cp", "-r", str(finished.folder), str(folder)], check=True)
    project = Project(folder)
    shutil.rmtree(folder / ".snakemake")
    project.forbid_asking()
    before = project.journal()
    project.snakemake()
    assert project.plan() == {}
    assert project.journal() == before


def test_results_are_rebuilt_from_the_journal(project: Project) -> None:
    """Everything but the answers is gone: the same prompts, kernels and selections come back, and nobody is asked."""
    before = project.journal()
    kept = {name: (project.results / name).read_bytes() for name in _files(project, "prompt.md", "kernel.py")}
    for path in project.results.iterdir():
        if path.is_dir() and path.name != "answers":
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
    shutil.rmtree(project.folder / ".snakemake")
    project.edit("prompts/_task.md.j2", "You write GPU kernels", "You now write GPU kernels")
    project.snakemake()
    assert project.journal() == before
    assert {name: (project.results / name).read_bytes() for name in _files(project, "prompt.md", "kernel.py")} == kept


def test_a_step_is_drawn_again_on_request(finished: Project, tmp_path: Path) -> None:
    """The old answer stays beside the new one; later steps keep theirs."""
    project = finished.copy(tmp_path / "project")
    before = project.journal()
    answer = project.folder / "replay" / "rmsnorm_h256" / "2.md"
    answer.write_text("```python\ndef run(hidden_states, weight):\n    return hidden_states\n```\n")
    command = [
        sys.executable,
        "scripts/redraw.py",
        "--task-folder",
        "results/small/rmsnorm_rmsnorm_h256",
        "--step",
        "2",
    ]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=True)
    assert "--forcerun" in done.stdout
    project.snakemake("--forcerun", f"{STEP}/response.json")
    assert project.plan() == {}
    after = project.journal()
    assert len(after) == 7
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"rmsnorm_rmsnorm_h256/2.json"}
    assert before["rmsnorm_rmsnorm_h256/2.json"] in after.values()
    assert "return hidden_states" in (project.folder / STEP / "kernel.py").read_text()


def _files(project: Project, *names: str) -> list[str]:
    """The files of all steps that have one of the names. What is best is measured again, and may be another."""
    found = [path for name in names for path in project.results.glob(f"*/step_*/{name}")]
    return sorted(str(path.relative_to(project.results)) for path in found)


@pytest.fixture(scope="module")
def server() -> Iterator[LLMServer]:
    """A service whose answers hold a whole kernel and have 1,000 tokens each."""
    text = (REPOSITORY / "datasets" / "mini" / "answers" / "rmsnorm_h256" / "1.md").read_text()
    with LLMServer(Reply(text=text, output_tokens=1000)) as server:
        yield server


@pytest.fixture(scope="module")
def spent(server: LLMServer, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A run of one task of two steps whose money was spent after the first; an answer costs a dollar."""
    project = Project.create(tmp_path_factory.mktemp("spent") / "project", **PAID)
    (project.folder / "tasks.txt").write_text("rmsnorm, rmsnorm_h256\n")
    project.snakemake(**server.environment())
    return project


PAID = {
    "api_type": "openai",
    "model_name": "a model without a price",
    "price": {"input": 0, "output": 1000},
    "max_completion_tokens": 1000,
    "max_cost": 1.5,
    "total_steps": 2,
}


def test_a_spent_budget_ends_the_run_in_order(server: LLMServer, spent: Project) -> None:
    assert len(server.requests) == 1
    assert set(spent.journal()) == {"rmsnorm_rmsnorm_h256/1.json"}
    assert spent.plan() == {}
    (row,) = read_model(spent.results / "summary.json", Summary).tasks
    assert (row.status, row.steps, row.skipped, row.cost_usd, row.best_step) == ("stopped", 1, 1, 1.0, 1)
    assert row.reason.startswith("budget spent: 1.0000 USD of max_cost 1.5")
    assert row.reason.endswith("(step 2 not asked)")
    assert "SKIPPED" not in row.verdicts
    # Nobody will be asked, so no key is wanted.
    done = spent.snakemake("--forcerun", "summarize", OPENAI_API_KEY="")
    assert "step 2 not asked" in done.stdout


def test_skipped_steps_are_asked_when_the_budget_is_raised(server: LLMServer, spent: Project, tmp_path: Path) -> None:
    project = spent.copy(tmp_path / "project")
    before, asked = project.journal(), len(server.requests)
    project.configure(**PAID | {"temperature": 0.1})
    assert project.plan() == {}
    project.configure(**PAID | {"max_cost": 2.5})
    without_key = project.snakemake(check=False, OPENAI_API_KEY="")
    assert "OPENAI_API_KEY is not set" in without_key.stdout + without_key.stderr and without_key.returncode
    # A run that ends before the question is asked leaves it to the next one.
    project.snakemake("--until", "limits", **server.environment())
    plan = project.plan()
    assert (plan["propose"], plan["evaluate"], plan["select_best"]) == (1, 1, 1)
    project.snakemake(**server.environment())
    assert project.plan() == {}
    after = project.journal()
    assert len(after) == 2 and {name: after[name] for name in before} == before
    assert len(server.requests) == asked + 1
    (row,) = read_model(project.results / "summary.json", Summary).tasks
    assert (row.status, row.steps, row.skipped, row.cost_usd) == ("done", 2, 0, 2.0)
    # And those that are answered are never asked again, whatever the limit is.
    project.configure(**PAID | {"max_cost": 0.5, "max_cost_per_task": 0.1})
    assert project.plan() == {}
