"""A parameter sweep by the real snakemake: no model, no key, a verdict a trial."""

from __future__ import annotations

from pathlib import Path

import pytest
from snakernel.evaluation.verdict import Evaluation, Status
from snakernel.files import read_model, write_text
from snakernel.llm.base import Answer
from snakernel.search import State
from snakernel.search.tunables import read_tunables

from workflow.running import Project

KERNEL = '''"""RMSNorm of 256 columns, ROWS rows a program."""
import torch
import triton
import triton.language as tl

TUNABLES = {"ROWS": [16, 32]}
ROWS = 16


@triton.jit
def norm(x, w, y, n, ROWS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    at = tl.arange(0, 256)[None, :]
    value = tl.load(x + row * 256 + at, mask=row < n, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, axis=1, keep_dims=True) / 256 + 1e-6)
    tl.store(y + row * 256 + at, (value * scale * tl.load(w + at).to(tl.float32)).to(tl.bfloat16), mask=row < n)


def run(hidden_states, weight):
    y = torch.empty_like(hidden_states)
    n = hidden_states.shape[0]
    norm[(triton.cdiv(n, ROWS),)](hidden_states, weight, y, n, ROWS=ROWS)
    return y
'''


@pytest.mark.slow
def test_a_sweep_runs_until_all_was_tried(tmp_path: Path) -> None:
    """As a service's, with no key set: nobody is asked."""
    keys = {"agent_type": "sweep", "sweep_path": "kernels", "api_type": "claude", "total_steps": 3}
    project = Project.create(tmp_path / "project", **keys)
    (project.folder / "tasks.txt").write_text("rmsnorm, rmsnorm_h256\n")
    refused = project.snakemake(check=False)
    assert "sweep_path: 'kernels' holds no kernel for 'rmsnorm_h256'" in refused.stdout + refused.stderr
    write_text(project.folder / "kernels" / "rmsnorm_h256.py", KERNEL)
    project.snakemake(ANTHROPIC_API_KEY="", ANTHROPIC_AUTH_TOKEN="")
    folder = project.results / "rmsnorm_rmsnorm_h256"
    steps = [folder / f"step_{step}" for step in (1, 2, 3)]
    verdicts = [read_model(one / "evaluation.json", Evaluation) for one in steps]
    assert [one.status for one in verdicts] == [Status.PASSED, Status.PASSED, Status.SKIPPED]
    assert [read_tunables((one / "kernel.py").read_text()).values["ROWS"] for one in steps[:2]] == [16, 32]
    answer = read_model(steps[1] / "response.json", Answer)
    assert (answer.api_type, answer.cost_usd, answer.request.question.parameters) == ("sweep", 0.0, {"ROWS": 32})
    state = read_model(steps[2] / "best.json", State)
    assert [one.parameters for one in state.islands[0].memory] == [{"ROWS": 16}, {"ROWS": 32}]
    assert "All 2 combinations were tried" in state.skipped
    assert project.plan() == {}
