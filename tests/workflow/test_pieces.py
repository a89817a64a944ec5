"""The workflow as people use it: single pieces, plans, other folders, the baseline's files, a service on loopback."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from llm_server import LLMServer, Reply
from snakernel.evaluation.verdict import Evaluation, Reference, Status
from snakernel.extraction import Extraction
from snakernel.files import read_model
from snakernel.llm.base import Answer, Prompt
from snakernel.report.page import vega
from snakernel.search import State
from snakernel.summary import Summary
from unit.test_config import BASELINE
from watching import watching

from workflow.running import TASKS, Project

TASK = "results/small/rmsnorm_rmsnorm_h256"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished run of two tasks of two steps, from answers of its own."""
    project = Project.create(tmp_path_factory.mktemp("pieces") / "project", total_steps=2)
    project.snakemake()
    return project


def test_every_file_of_a_run_is_there_and_valid(finished: Project) -> None:
    assert yaml.safe_load((finished.results / "config.yaml").read_text())["total_steps"] == 2
    for task in TASKS:
        folder = finished.results / task
        for name in ("definition.json", "reference.py", "workloads.jsonl", "best/kernel.py"):
            assert (folder / name).stat().st_size
        read_model(folder / "reference" / "reference.json", Reference)
        assert read_model(folder / "best" / "evaluation.json", Evaluation).task_id == task
        for step in (1, 2):
            for name, kind in (
                ("response.json", Answer),
                ("extraction.json", Extraction),
                ("evaluation.json", Evaluation),
                ("best.json", State),
            ):
                read_model(folder / f"step_{step}" / name, kind)
            answer = read_model(folder / f"step_{step}" / "response.json", Answer)
            assert answer.request.prompt == (folder / f"step_{step}" / "prompt.md").read_text()
            assert answer.text == (finished.folder / "replay" / task.partition("_")[2] / f"{step}.md").read_text()
    assert not list(finished.results.rglob("*.tmp"))


def test_the_exported_solution_is_flashinfer_benchs(finished: Project) -> None:
    code = (
        "import sys; from flashinfer_bench.data import Solution; "
        "s = Solution.model_validate_json(open(sys.argv[1]).read()); "
        "print(s.spec.entry_point, s.spec.language.value, s.spec.destination_passing_style)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(finished.folder / TASK / "best" / "solution.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["main.py::run", "triton", "False"]


def test_the_summary(finished: Project) -> None:
    summary = read_model(finished.results / "summary.json", Summary)
    assert [row.task for row in summary.tasks] == list(TASKS)
    assert (summary.total_count, summary.correct_count, summary.accuracy) == (2, 2, 1.0)
    assert summary.average_speedup == pytest.approx(sum(row.best_speedup for row in summary.tasks) / 2)
    assert all(row.status == "done" and row.steps == 2 for row in summary.tasks)
    rows = list(csv.DictReader((finished.results / "summary.csv").open()))
    assert [row["task"] for row in rows] == list(TASKS)
    assert rows[0]["verdicts"]


def test_the_table_ends_the_run(finished: Project) -> None:
    done = finished.snakemake("--forcerun", "summarize")
    assert "Correct count 2, total count 2, accuracy 1" in done.stdout
    assert "results/small/summary.csv" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "jobs"),
    [
        ((f"{TASK}/step_2/evaluation.json", "--forceall"), {"propose": 2, "evaluate": 1}),
        (("--forcerun", "evaluate"), {"evaluate": 4, "select_best": 4}),
        (("--until", "propose", "--forcerun", "propose"), {"propose": 4}),
    ],
)
def test_single_pieces(finished: Project, arguments: tuple[str, ...], jobs: dict[str, int]) -> None:
    plan = finished.plan(*arguments)
    assert {rule: plan.get(rule, 0) for rule in jobs} == jobs


def test_a_single_evaluation_from_nothing(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "project")
    plan = project.plan(f"{TASK}/step_2/evaluation.json")
    assert plan == {
        "check_task": 1,
        "measure_reference": 1,
        "limits": 1,
        "propose": 2,
        "evaluate": 2,
        "select_best": 1,
    }


def test_the_graph_is_drawn(finished: Project) -> None:
    done = finished.snakemake("--dag", "--forceall")
    assert "digraph" in done.stdout


def test_the_baselines_yaml_plans_unchanged(tmp_path: Path) -> None:
    """Every key of the baseline, at its contest values, on a folder with the contest's names."""
    project = Project.create(tmp_path / "project")
    definitions = project.folder / "datasets" / "mlsys26-contest" / "definitions"
    for op_type, names in (("moe", ["moe_fp8"]), ("dsa_paged", ["dsa_a", "dsa_b"]), ("gdn", ["gdn_d", "gdn_p"])):
        (definitions / op_type).mkdir(parents=True)
        for name in names:
            (definitions / op_type / f"{name}.json").write_text("{}")
    project.config.write_text(yaml.safe_dump(BASELINE))
    assert project.plan()["propose"] == 5 * 25
    assert project.plan("--config", "total_steps=3", "agent_type=evolve", "refine_steps=1")["propose"] == 5 * 3 * 2


def test_the_evolving_agent_runs(tmp_path: Path) -> None:
    """Two parallel proposals, then one from their pool that is a copy; then a stop; then the stop is taken away."""
    keys = {"planner": True, "reject_duplicates": True, "models": ["a", "b"], "parallel_proposals": 2, "pool_size": 3}
    project = Project.create(tmp_path / "project", agent_type="evolve", total_steps=3, **keys)
    (project.folder / "tasks.txt").write_text("rmsnorm, rmsnorm_h256\n")
    first, third = (project.folder / "replay" / "rmsnorm_h256" / f"{step}.md" for step in (1, 3))
    first.write_text("<idea>one program a row</idea>\n" + first.read_text())
    third.write_text(first.read_text().replace("import torch\n", "# a copy\nimport torch\n", 1))
    project.snakemake()
    assert project.plan() == {}
    folder = project.folder / TASK
    assert [read_model(folder / f"step_{step}" / "prompt.json", Prompt).shown for step in (1, 2)] == [[], []]
    state = read_model(folder / "step_2" / "best.json", State)
    (island,) = state.islands
    shown = [one.step for one in (*island.elite, *island.recent)]
    prompt = (folder / "step_3" / "prompt.md").read_text()
    assert [f"### Kernel of step {step}" in prompt for step in (1, 2)] == [step in shown for step in (1, 2)]
    question = read_model(folder / "step_3" / "prompt.json", Prompt)
    assert (question.shown, question.ideas) == (shown, [1])
    assert "- Step 1: one program a row -> correct" in prompt
    asked = read_model(folder / "step_3" / "response.json", Answer).request
    assert asked.model == asked.question.model in ("a", "b")
    verdict = read_model(folder / "step_3" / "evaluation.json", Evaluation)
    assert (verdict.status, verdict.workloads) == (Status.REJECTED, [])
    last = read_model(folder / "step_3" / "best.json", State)
    assert last.round[-1].duplicate_of == 1
    assert sum(one.asked for one in last.models.values()) == 3

    project.snakemake("--config", "total_steps=5", "stop_at_speedup=1e-9")
    for step in (4, 5):
        assert "stop_at_speedup is 1e-09" in (folder / f"step_{step}" / "prompt.md").read_text()
        assert read_model(folder / f"step_{step}" / "evaluation.json", Evaluation).status is Status.SKIPPED
    assert project.plan("--config", "total_steps=5")["propose"] == 2


def test_a_run_is_replayed_from_its_own_results(finished: Project, tmp_path: Path) -> None:
    """The same kernels, without the recorded answers and without a key."""
    project = Project.create(tmp_path / "project", total_steps=2, replay_path=str(finished.results))
    project.forbid_asking()
    project.snakemake()
    for task in TASKS:
        for step in (1, 2):
            names = [f"{task}/step_{step}/{name}" for name in ("kernel.py", "extraction.json")]
            for name in names:
                assert (project.results / name).read_bytes() == (finished.results / name).read_bytes()


def test_it_runs_from_another_folder(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "project")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("tasks.txt", "replay"):
        (elsewhere / name).symlink_to(project.folder / name)
    command = [sys.executable, "-m", "snakemake", "-s", str(project.folder / "Snakefile")]
    command += ["--configfile", str(project.config), "--cores", "2", f"{TASK}/step_1/evaluation.json"]
    subprocess.run(command, cwd=elsewhere, check=True, capture_output=True)
    assert (elsewhere / TASK / "step_1" / "evaluation.json").exists()


def test_a_prompt_is_shown_without_asking(finished: Project) -> None:
    command = [sys.executable, "scripts/propose.py", "--only-prompt", "--config", "results/small/config.yaml"]
    done = subprocess.run(
        [*command, "--task-folder", TASK, "--step", "3"],
        cwd=finished.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "## The kernel to edit (step 2)" in done.stdout


@pytest.mark.parametrize(
    "api_type",
    ["claude", pytest.param("openai", marks=pytest.mark.slow), pytest.param("gemini", marks=pytest.mark.slow)],
)
def test_a_run_on_a_real_protocol(tmp_path: Path, api_type: str) -> None:
    """The real SDK, a server on loopback, one answer a step: each is asked for once, and no key is kept anywhere."""
    text = (REPOSITORY / "datasets" / "mini" / "answers" / "rmsnorm_h256" / "1.md").read_text()
    project = Project.create(tmp_path / "project", api_type=api_type, model_name="test-model", total_steps=2)
    (project.folder / "tasks.txt").write_text("rmsnorm, rmsnorm_h256\n")
    with LLMServer(Reply(text)) as server:
        environment = server.environment()
        keys = [value for name, value in environment.items() if name.endswith("_KEY")]
        with watching(project.folder, keys) as seen:
            project.snakemake(**environment)
        assert (seen.in_arguments, seen.in_evaluators) == ([], [])
        assert {"propose.py", "worker.py", "evaluate.py", "evaluator.py"} <= seen.processes
        assert server.answered == 2
        project.snakemake("--forceall", **environment)
        if api_type == "gemini":  # a slow case
            exports = ("export_trace", "export_contest", "export_baseline_layout", "export_crate")
            project.snakemake(*exports, **environment)
            project.snakemake("--report", "report.html", **environment)
            with zipfile.ZipFile(project.results / "exports" / "small.crate.zip") as crate:
                crate.extractall(project.folder / "crate")
        assert server.answered == 2
    for step in (1, 2):
        answer = read_model(project.folder / TASK / f"step_{step}" / "response.json", Answer)
        assert (answer.api_type, answer.text, answer.attempts) == (api_type, text, 1)
        assert answer.usage.output_tokens > 0
    assert keys
    for path in project.folder.rglob("*"):
        if path.is_file() and ".snakemake/conda" not in str(path):
            assert not any(key.encode() in path.read_bytes() for key in keys), path


@pytest.mark.parametrize(("name", "asked"), [("config.yaml", 25), ("config_mini_test.yaml", 10)])
def test_the_projects_configurations_plan(tmp_path: Path, name: str, asked: int) -> None:
    project = Project.create(tmp_path / "project")
    (project.folder / "datasets").mkdir()
    (project.folder / "datasets" / "mini").symlink_to(REPOSITORY / "datasets" / "mini")
    project.config.write_text((project.folder / "config" / name).read_text())
    assert project.plan()["propose"] == asked


@pytest.mark.parametrize(("change", "code", "told"), [("", 0, "speedup "), ("    y += 1\n", 1, "INCORRECT_NUMERICAL")])
def test_a_kernel_is_judged_by_hand(tmp_path: Path, change: str, code: int, told: str) -> None:
    solution = next((REPOSITORY / "datasets" / "mini" / "solutions").rglob("silu_and_mul_h384_baseline_triton.json"))
    kernel = json.loads(solution.read_text())["sources"][0]["content"]
    head, _, result = kernel.rpartition("    return ")
    (tmp_path / "kernel.py").write_text(head + change.replace("y", result.strip()) + "    return " + result)
    config = {"dataset_root": str(REPOSITORY / "datasets" / "mini"), "eval_backend": "cpu", "max_workloads": 2}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"iterations": 2, "timing_budget_s": 0.1}))
    command = [sys.executable, str(REPOSITORY / "scripts" / "evaluate.py"), "--config", str(tmp_path / "config.yaml")]
    command += ["--definition", "silu_and_mul_h384", "--kernel", str(tmp_path / "kernel.py")]
    if change:
        command += ["--against", str(solution)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert told in done.stdout
    assert done.stdout.count("num_tokens=") >= 2
    assert bool(change) == ("kernel.py: is INCORRECT_NUMERICAL: only correct kernels are timed" in done.stderr)


def test_the_report(finished: Project) -> None:
    """snakemake --report right after a run: one file, the page of the run in its start page, the best kernels in it."""
    finished.snakemake("--report", "report.html")
    report = (finished.folder / "report.html").read_text()
    packed = re.search(r'data-page=\\"(.*?)\\"', report)[1].replace("\\n", "")
    page = gzip.decompress(base64.b64decode(packed)).decode()
    whole = (finished.results / "report" / "index.html").read_text()
    for source in vega():  # Snakemake's report has it once already
        assert source in whole
        whole = whole.replace(f"<script>{source}</script>", "")
    assert page == whole
    assert all(f'id="page-{task}"' in page for task in TASKS)
    results = json.loads(re.search(r'<script id="results">\s*var results = (.*);$', report, re.MULTILINE)[1])
    assert {f"results/small/{task}/best/{name}" for task in TASKS for name in ("kernel.py", "solution.json")} | {
        "results/small/ro-crate-metadata.json"
    } == set(results)
    assert results[f"{TASK}/best/kernel.py"]["labels"]["task"] == "rmsnorm_rmsnorm_h256"


def test_the_command_of_the_page_repeats_the_verdict(finished: Project) -> None:
    """It names the kernel, judges it anew and ends well; on a kernel that was changed it does not."""
    crate = json.loads((finished.results / "ro-crate-metadata.json").read_text())
    action = next(one for one in crate["@graph"] if one["@id"] == "#verdict-rmsnorm_rmsnorm_h256")
    command = shlex.split(action["description"].removeprefix("Repeat with: "))
    assert command[0] == "python"
    done = subprocess.run([sys.executable, *command[1:]], cwd=finished.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rmsnorm_rmsnorm_h256: PASSED" in done.stdout
