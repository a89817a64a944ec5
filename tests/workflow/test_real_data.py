"""Real definitions and real kernels that language models wrote, through the whole workflow on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from replays import write_replays
from snakernel.evaluation.verdict import Evaluation, Status
from snakernel.files import read_model

from workflow.running import Project

pytestmark = pytest.mark.slow

TASKS = {
    "rmsnorm_h128": ("rmsnorm", [Status.PASSED] * 3),
    "gemm_n128_k2048": ("gemm", [Status.PASSED]),
    "gqa_paged_decode_h32_kv8_d128_ps1": ("gqa_paged", [Status.PASSED]),
    # A port to another vendor's library, which is not here: no trace records a verdict of its.
    "gdn_decode_qk4_v8_d128_k_last": ("gdn", [Status.COMPILE_ERROR]),
}
"""The op type of each, and the verdicts on its Triton and Python solutions: PASSED in their traces, where they have
one (rmsnorm_h128's o3 kernel; a kernel of the same author for the others)."""


@pytest.fixture(scope="module")
def finished(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A run over four real definitions; each step is a real kernel, and after it the definition's own reference."""
    project = Project.create(
        tmp_path_factory.mktemp("real") / "project",
        dataset_root=str(real_data),
        total_steps=4,
        max_workloads=2,
        eval_timeout_s=120,
        replay_path="real",
    )
    kernels = write_replays(real_data, project.folder / "real")
    lines = []
    for definition, (op_type, _) in TASKS.items():
        lines.append(f"{op_type}, {definition}\n")
        reference = (real_data / "definitions" / op_type / f"{definition}.json").read_text()
        import json

        answer = f"The reference itself.\n```python\n{json.loads(reference)['reference']}\n```\n"
        for step in range(len(kernels.get(definition, [])) + 1, 5):
            (project.folder / "real" / definition / f"{step}.md").write_text(answer)
    (project.folder / "tasks.txt").write_text("".join(lines))
    project.snakemake()
    return project


@pytest.mark.parametrize("definition", TASKS)
def test_verdicts_are_those_of_the_traces(finished: Project, definition: str) -> None:
    op_type, expected = TASKS[definition]
    folder = finished.results / f"{op_type}_{definition}"
    verdicts = [read_model(folder / f"step_{step}" / "evaluation.json", Evaluation) for step in range(1, 5)]
    assert [one.status for one in verdicts] == expected + [Status.PASSED] * (4 - len(expected))
    assert all(len(one.workloads) == 2 for one in verdicts if one.status is Status.PASSED)
    if expected == [Status.COMPILE_ERROR]:
        assert "No module named 'aiter'" in verdicts[0].error
