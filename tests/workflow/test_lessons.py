"""Lessons across the tasks of a run, by the real snakemake."""

from __future__ import annotations

from pathlib import Path

import pytest
from snakernel.files import read_model
from snakernel.llm.base import Prompt

from workflow.running import Project

FIRST, LATER, OTHER = "rmsnorm_rmsnorm_h256", "rmsnorm_fused_add_rmsnorm_h512", "activation_silu_and_mul_h384"


@pytest.mark.slow
def test_a_task_waits_for_its_siblings_and_is_shown_their_best(tmp_path: Path) -> None:
    keys = {"agent_type": "evolve", "lessons_from_siblings": True}
    project = Project.create(tmp_path / "project", total_steps=1, **keys)
    tasks = "activation, silu_and_mul_h384\nrmsnorm, rmsnorm_h256, fused_add_rmsnorm_h512\n"
    (project.folder / "tasks.txt").write_text(tasks)
    prompt = project.results / LATER / "step_1" / "prompt.md"
    project.snakemake(f"results/small/{LATER}/step_1/prompt.md")
    asked = prompt.read_text()
    assert (project.results / FIRST / "best" / "kernel.py").read_text().strip() in asked
    assert read_model(prompt.with_suffix(".json"), Prompt).lessons == [FIRST]
    assert read_model(project.results / FIRST / "step_1" / "prompt.json", Prompt).lessons == []
    assert not (project.results / OTHER).exists()
    project.snakemake()
    journal = project.journal()
    assert len(journal) == 3

    # More steps of a sibling may change its best kernel: what was asked before stays, and is not asked again.
    project.configure(total_steps=2, **keys)
    assert project.plan()["propose"] == 3
    project.snakemake()
    assert prompt.read_text() == asked
    assert project.journal().items() >= journal.items() and len(project.journal()) == 6
    later = project.results / LATER / "step_2" / "prompt.json"
    best = project.results / FIRST / "best" / "kernel.py"
    assert read_model(later, Prompt).lessons == [FIRST]
    assert best.read_text().strip() in later.with_suffix(".md").read_text()
    assert best.stat().st_mtime_ns < later.stat().st_mtime_ns
    assert project.plan() == {}
