"""What a run exports, read back by the tools that it is for; and a run that goes on from an export."""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from evaluating import KERNEL
from snakernel.baseline import import_answers, metrics
from snakernel.config import load_config
from snakernel.dataset import Task
from snakernel.evaluation.verdict import Evaluation
from snakernel.exports import Finished
from snakernel.exports.contest import Scores, scores
from snakernel.extraction import extract
from snakernel.files import read_model, write_model, write_text
from snakernel.history import step
from snakernel.llm.base import Answer, Prompt

from workflow.running import Project

EXPORTS = ("export_trace", "export_contest", "export_baseline_layout", "export_crate")
TASK, DEFINITION = "rmsnorm_rmsnorm_h256", "rmsnorm_h256"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A run that went on from one step of the baseline's, exported in every form; its second step cannot be built."""
    folder = tmp_path_factory.mktemp("exports")
    kernel = json.loads(KERNEL.read_text())["sources"][0]["content"]
    earlier = folder / "outputs" / "iterative_mini_1_20260101-000000"
    write_text(earlier / "config.yaml", "model_name: earlier-model\ntotal_steps: 1\n")
    write_text(earlier / TASK / "proposal_0_1.py", kernel)
    write_text(earlier / TASK / "proposal_0_1_prompt.txt", "Write a kernel.")
    write_text(earlier / TASK / "proposal_0_1_metrics.json", '{"compiled": true, "correct": true, "speedup": 9.0}')
    project = Project.create(
        folder / "project",
        total_steps=2,
        export_kernels="all",
        export_author="a team/us",
        resume_from=str(earlier),
    )
    (project.folder / "tasks.txt").write_text("rmsnorm, rmsnorm_h256\n")
    answers = project.folder / "replay" / DEFINITION
    (answers / "1.md").unlink()
    (answers / "2.md").write_text("```python\ndef run(only_one):\n    pass\n```\n")
    done = project.snakemake(*EXPORTS, "all")
    assert "1 of 1 kernels" in done.stderr
    shutil.rmtree(earlier)
    return project


@pytest.mark.slow
def test_a_run_goes_on_from_the_baselines_folder(exported: Project) -> None:
    """Its kernel and prompt are step 1, its metrics are kept and not believed; only step 2 was asked."""
    kernel = json.loads(KERNEL.read_text())["sources"][0]["content"]
    steps = [exported.results / TASK / f"step_{number}" for number in (1, 2)]
    assert (steps[0] / "kernel.py").read_text() == kernel
    assert (steps[0] / "prompt.md").read_text() == "Write a kernel."
    answers = [read_model(folder / "response.json", Answer) for folder in steps]
    assert [(one.api_type, one.model) for one in answers] == [("imported", "earlier-model"), ("replay", "recorded")]
    assert answers[0].raw["metrics"]["speedup"] == 9.0
    assert read_model(steps[0] / "evaluation.json", Evaluation).speedup != 9.0
    assert read_model(steps[1] / "prompt.json", Prompt).question.base == 1
    # The folder is gone: what it held is in the journal.
    assert exported.plan(*EXPORTS) == {}


def test_flashinfer_bench_reads_the_traces_and_scores_them_alike(exported: Project, tmp_path: Path) -> None:
    from flashinfer_bench.data import TraceSet

    dataset = tmp_path / "dataset"
    shutil.copytree(REPOSITORY / "datasets" / "mini", dataset)
    shutil.copytree(exported.results / "exports" / "flashinfer-trace", dataset, dirs_exist_ok=True)
    traces = TraceSet.from_path(str(dataset))
    best = read_model(exported.results / TASK / "best" / "evaluation.json", Evaluation)
    solutions = {one.name: one for one in traces.solutions[DEFINITION] if one.author == "a team/us"}
    assert len(solutions) == 2
    # Its default bounds are stricter than its own verdict, which lets a small error be relatively large.
    bounds = {"max_abs_error": float("inf"), "max_rel_error": float("inf")}
    chosen = traces.get_best_trace(DEFINITION, **bounds)
    assert chosen is not None
    assert solutions[chosen.solution].sources[0].content == (exported.results / TASK / "best/kernel.py").read_text()
    passed = [one for one in traces.traces[DEFINITION] if one.solution == chosen.solution]
    factors = [one.evaluation.performance.speedup_factor for one in passed]
    assert statistics.fmean(factors) == pytest.approx(best.speedup)
    known = {trace.workload.uuid: trace.workload for trace in traces.workloads[DEFINITION]}
    assert all(one.workload == known[one.workload.uuid] for one in traces.traces[DEFINITION])
    failed = [one.evaluation for one in traces.traces[DEFINITION] if not one.is_successful()]
    assert [one.status.value for one in failed] == ["COMPILE_ERROR"]
    assert failed[0].log
    assert traces.summary()["passed"] == 1


def test_a_submission_unpacks_and_gets_the_same_verdict(exported: Project, tmp_path: Path) -> None:
    from flashinfer_bench.agents import extract_solution_to_files, pack_solution_from_files
    from flashinfer_bench.data import BuildSpec, Solution

    folder = exported.results / "exports" / "contest" / DEFINITION
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["solution"]["author"] == "a team/us"
    solution = Solution.model_validate_json((folder / "solution.json").read_text())
    # The starter kit's way: what config.toml says, packed again.
    spec = BuildSpec(target_hardware=["cuda"], **config["build"])
    packed = pack_solution_from_files(str(folder / "solution" / "triton"), spec, **config["solution"])
    assert packed.sources == solution.sources
    assert (packed.name, packed.spec) == (solution.name, solution.spec)
    kernel = Path(extract_solution_to_files(solution, str(tmp_path))) / "kernel.py"
    command = ["scripts/evaluate.py", "--config", "results/small/config.yaml", "--task-folder", f"results/small/{TASK}"]
    out = tmp_path / "evaluation.json"
    done = subprocess.run(
        [sys.executable, *command, "--kernel", str(kernel), "--out", str(out)],
        cwd=exported.folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    again = read_model(out, Evaluation)
    best = read_model(exported.results / TASK / "best" / "evaluation.json", Evaluation)
    same = ("kernel_sha256", "status", "compiled", "correct", "error", "stats")
    assert {name: getattr(again, name) for name in same} == {name: getattr(best, name) for name in same}


def test_the_contests_score(exported: Project, tmp_path: Path) -> None:
    (one,) = read_model(exported.results / "exports" / "contest" / "score.json", Scores).definitions
    assert (one.definition, one.track, one.score is None) == (DEFINITION, None, bool(one.reason))
    shutil.copytree(exported.results / TASK, tmp_path / TASK)
    evaluation = read_model(tmp_path / TASK / "step_1" / "evaluation.json", Evaluation)
    known = evaluation.model_copy(update={"speedup_over_baseline": 2.0})
    write_model(tmp_path / TASK / "step_1" / "evaluation.json", known)
    tracked = Task("gdn", "gdn_decode_qk4_v8_d128_k_last")
    found = Finished(tracked, tmp_path / TASK, [step(tmp_path / TASK, 2)])
    record = scores([found])
    assert (record.definitions[0].score, record.tracks) == (2.0, {"gated_delta_net": 2.0})


def test_the_crate_is_read_by_rocrate(exported: Project, tmp_path: Path) -> None:
    from rocrate.rocrate import ROCrate

    path = exported.results / "exports" / "small.crate.zip"
    crate = ROCrate(path)
    assert crate.mainEntity.id == "workflow/Snakefile"
    (action,) = (one for one in crate.get_by_type("CreateAction") if one["instrument"] == crate.mainEntity)
    results = {entity.id for entity in action["result"]}
    assert {f"run/{TASK}/best/kernel.py", "run/summary.json"} <= results
    kernel = crate.dereference(f"run/{TASK}/best/kernel.py")
    assert kernel["author"]["name"] == "earlier-model"
    # What the run's own crate says of the kernel, its maker and its judge is here too.
    content = (exported.results / TASK / "best" / "kernel.py").read_bytes()
    assert kernel["sha256"] == hashlib.sha256(content).hexdigest()
    made, judged = crate.dereference(f"#answer-{TASK}"), crate.dereference(f"#verdict-{TASK}")
    assert kernel in made["result"] and kernel in judged["object"]
    assert {made, judged} <= set(crate.root_dataset["mentions"])
    own = json.loads((exported.results / "ro-crate-metadata.json").read_text())["@graph"]
    about = {one["@id"] for one in own} - {"./", "ro-crate-metadata.json"}
    known = {entity.id for entity in crate.get_entities()}
    assert {name if name[0] == "#" else f"run/{name}" for name in about} <= known
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path)
    assert {entity.id for entity in crate.get_entities() if "File" in entity.type} <= names
    packed = {name.removeprefix("run/answers/") for name in names if name.startswith("run/answers/")}
    assert packed == set(exported.journal())


def test_the_baselines_layout_is_read_as_what_it_was(exported: Project, tmp_path: Path) -> None:
    (folder,) = (exported.results / "exports" / "baseline").glob("iterative_mini_2_*")
    assert yaml.safe_load((folder / "config.yaml").read_text())["total_steps"] == 2
    names = {path.name for path in (folder / TASK).iterdir()}
    assert {"reference_src.py", "global_best_kernel_2.py", "global_best_metrics_2.json"} <= names
    assert json.loads((folder / TASK / "reference_src.py").read_text())["name"] == DEFINITION
    config = load_config({"test_source": "mini", "save_path": str(tmp_path), "resume_from": str(folder)})
    assert list(import_answers(config, [Task("rmsnorm", DEFINITION)])) == [
        f"{TASK}: 2 of 2 kernels of {folder / TASK} are steps now"
    ]
    for number in (1, 2):
        answer = read_model(config.results / "answers" / TASK / f"{number}.json", Answer)
        step = exported.results / TASK / f"step_{number}"
        assert extract(answer.text, None, None)[0] == (step / "kernel.py").read_text()
        assert answer.request.prompt == (step / "prompt.md").read_text()
        verdict = read_model(step / "evaluation.json", Evaluation)
        assert answer.raw["metrics"] == metrics(verdict)
