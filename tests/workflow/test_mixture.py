"""One run, two services: each is asked at its own address with its own key, and a bandit weighs them by their costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from llm_server import LLMServer, Reply
from snakernel.files import read_model
from snakernel.llm.base import Answer, Prompt
from snakernel.search import State
from snakernel.search.state import ModelRecord
from snakernel.summary import Summary
from watching import watching

from workflow.running import TASKS, Project

OWN, GPT = "claude:own-model", "gpt-6-sol"
MIXTURE = {
    "api_type": "openai",
    "models": [OWN, GPT],
    "agent_type": "evolve",  # an answer without code is no kernel: a tuner would keep the one that it was shown
    "model_choice": "bandit",
    "parallel_proposals": 2,
    "total_steps": 3,
    "price": {OWN: {"input": 0, "output": 1000}},
    "max_completion_tokens": 1000,
    "max_cost": 100.0,
    "requests_in_flight": 1,
    "batch_poll_s": 0.05,
}


@pytest.mark.slow
@pytest.mark.parametrize(("llm_mode", "part"), [("stream", 1.0), ("batch", 0.5)])
def test_two_services_answer_in_one_run(tmp_path: Path, llm_mode: str, part: float) -> None:
    """Claude's first answer is a kernel, at a dollar; those of OpenAI hold none, at a hundredth of it.

    Steps 1 and 2 draw one each; for step 3 the seed draws the cheap one, and would not if both cost the same.
    """
    kernel = (REPOSITORY / "datasets" / "mini" / "answers" / "rmsnorm_h256" / "1.md").read_text()
    project = Project.create(tmp_path / "project", llm_mode=llm_mode, **MIXTURE)
    (project.folder / "tasks.txt").write_text("rmsnorm, rmsnorm_h256\n")
    task = project.results / TASKS[0]
    with LLMServer(Reply(kernel, output_tokens=1000)) as claude, LLMServer(Reply("Sorry.", output_tokens=1000)) as gpt:
        environment = claude.environment() | {"OPENAI_BASE_URL": gpt.environment()["OPENAI_BASE_URL"]}
        keys = [value for name, value in environment.items() if name.endswith("_KEY")]
        with watching(project.folder, keys) as seen:
            project.snakemake(SNAKERNEL_LOCKS=str(tmp_path), **environment)
        assert (seen.in_arguments, seen.in_evaluators) == ([], [])
        assert "worker.py" in seen.processes
        assert (claude.answered, gpt.answered) == (1, 2)
        for server, service, model in ((claude, "ANTHROPIC", "own-model"), (gpt, "OPENAI", GPT)):
            assert {one.body["model"] for one in server.requests} == {model}
            if llm_mode == "stream":
                key = f"Bearer {environment[f'{service}_API_KEY']}"
                assert {one.headers["authorization"] for one in server.requests} == {key}
        # One process that asks served both: two services, two files of requests in flight.
        assert len(list(tmp_path.glob("snakernel-*/*.lock"))) == 2
        project.snakemake("--forceall", **environment)
        assert (claude.answered, gpt.answered) == (1, 2)
        assert project.plan() == {}
    answers = [read_model(task / f"step_{step}" / "response.json", Answer) for step in (1, 2, 3)]
    asked = [("claude", "own-model"), *[("openai", GPT)] * 2]
    assert [(one.api_type, one.request.model) for one in answers] == asked
    assert [one.request.question.model for one in answers] == [OWN, GPT, GPT]
    dear, cheap = 1.0 * part, answers[1].cost_usd
    assert cheap == pytest.approx(0.01 * part, rel=0.1)
    assert [one.cost_usd for one in answers] == pytest.approx([dear, cheap, cheap])
    assert read_model(project.results / "summary.json", Summary).cost_usd == pytest.approx(dear + 2 * cheap)
    first = read_model(task / "step_2" / "best.json", State).models
    assert first == {
        OWN: ModelRecord(asked=1, cost_usd=dear, gains=1.0),
        GPT: ModelRecord(asked=1, cost_usd=cheap, gains=0.0),
    }
    assert read_model(task / "step_3" / "best.json", State).models[GPT].asked == 2
    assert set(read_model(task / "step_3" / "prompt.json", Prompt).model_scores) == {OWN, GPT}
    if llm_mode == "batch":
        return
    check_views(project)
    # The run is replayed with its own configuration, without keys: the same answers, for nothing.
    again = ("--config", "api_type=replay", f"replay_path={project.results}", "run=again")
    project.snakemake(*again, ANTHROPIC_API_KEY="", OPENAI_API_KEY="")
    for step in (1, 2, 3):
        name = f"{TASKS[0]}/step_{step}"
        kernels = [project.folder / "results" / run / name / "kernel.py" for run in ("small", "again")]
        assert kernels[0].read_bytes() == kernels[1].read_bytes()
    replayed = read_model(project.folder / "results" / "again" / "summary.json", Summary)
    assert replayed.cost_usd == 0.0


def check_views(project: Project) -> None:
    """What tells of a run tells whose each answer is."""
    crate = json.loads((project.results / "ro-crate-metadata.json").read_text())["@graph"]
    told = {one["name"]: one["value"] for one in crate if one["@id"].startswith(f"#answer-{TASKS[0]}-")}
    assert (told["api_type"], told["model asked for"]) == ("claude", "own-model")
    page = (project.results / "report" / "index.html").read_text()
    assert '<td>own-model <span class="soft">of claude</span></td>' in page
    command = [sys.executable, "scripts/compare.py", "results/small", "results/small", "--out", "comparison.html"]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=True)
    assert f"{OWN}, {GPT}" in " ".join(done.stdout.split())
