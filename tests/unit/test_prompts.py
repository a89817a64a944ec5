"""Prompts: what they carry, what a user may replace, and what is wrong with a template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY
from snakernel.config import load_config
from snakernel.errors import UserError
from snakernel.evaluation.verdict import (
    Device,
    Evaluation,
    Latency,
    Reference,
    ReferenceWorkload,
    Settings,
    Status,
    WorkloadResult,
)
from snakernel.extraction import Extraction
from snakernel.files import write_model, write_text
from snakernel.prompts import render, shorten
from snakernel.search import Attempt, create_strategy

CONFIG = load_config({"gpu_name": "B200", "gpu_architecture": "Blackwell", "eval_backend": "cpu", "total_steps": 9})
DEVICE = Device(kind="cpu", name="a processor")
VERSIONS = {"python": "3.11", "torch": "2.13", "triton": "3.7.1"}
TASK = "gemm_gemm_n128_k256"


def latency(ms: float) -> Latency:
    return Latency(median_ms=ms, low_ms=ms, high_ms=ms, calls=9)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A task's folder with a definition and a reference of two workloads."""
    folder = tmp_path / TASK
    definition = json.loads((REPOSITORY / "datasets/mini/definitions/gemm/gemm_n128_k256.json").read_text())
    write_text(folder / "definition.json", json.dumps({"constraints": []} | definition))
    write_text(folder / "reference.py", definition["reference"])
    workloads = [
        ReferenceWorkload(
            uuid=f"w{m}", axes={"M": m}, latency=latency(m / 10), output_bytes=1, expected=[], stored=False
        )
        for m in (1, 257)
    ]
    reference = Reference(
        task_id=TASK,
        definition_sha256="",
        device=DEVICE,
        versions=VERSIONS,
        timing="",
        settings=Settings.of(CONFIG),
        workloads=workloads,
    )
    write_model(folder / "reference" / "reference.json", reference)
    return folder


def add_step(folder: Path, number: int, speedup: float | None, code: str, error: str = "", **extraction) -> Attempt:
    """Write a step's files; a speedup of None is a wrong kernel."""
    correct = speedup is not None
    rows = [
        WorkloadResult(
            uuid="w1", axes={"M": 1}, status=Status.PASSED, latency=latency(0.05), reference_ms=0.1, speedup=speedup
        )
    ]
    evaluation = Evaluation(
        task_id=TASK,
        kernel_sha256="",
        status=Status.PASSED if correct else Status.INCORRECT_NUMERICAL,
        compiled=True,
        correct=correct,
        speedup=speedup,
        speedup_geomean=speedup,
        latency_ms=0.05 if correct else None,
        error=error,
        stats={},
        workloads=rows,
        device=DEVICE,
        versions=VERSIONS,
        timing="",
        settings=Settings.of(CONFIG),
        seconds={},
        started="",
    )
    write_text(folder / f"step_{number}" / "kernel.py", code)
    write_model(folder / f"step_{number}" / "evaluation.json", evaluation)
    write_model(folder / f"step_{number}" / "extraction.json", Extraction(**({"kind": "kernel"} | extraction)))
    return Attempt(step=number, compiled=True, correct=correct, speedup=speedup or 0.0)


def prompt(folder: Path, attempts: list[Attempt], config=CONFIG) -> tuple[str, object]:
    strategy = create_strategy(config, TASK)
    state = strategy.start()
    for attempt in attempts:
        state = strategy.update(state, attempt)
    return render(config, strategy, state, folder, len(attempts) + 1)


def test_a_proposal_carries_the_task(folder: Path) -> None:
    text, question = prompt(folder, [])
    assert question.role == "proposer"
    for part in ("gemm_n128_k256", "B200", "Blackwell", "def run(A, B)", "M=257", "| 25,700 |", "Triton 3.7.1", "0.01"):
        assert part in text
    assert "Do not check for CUDA" in text
    assert "Earlier kernels" not in text


def test_a_tuning_carries_kernel_history_and_what_went_wrong(folder: Path) -> None:
    attempts = [
        add_step(folder, 1, 1.5, "BLOCK = 1\nA = 0\n"),
        add_step(folder, 2, None, "BLOCK = 2\nA = 0\n", "C[0, 0] is 1, expected 2", kind="edits", base=1),
        add_step(
            folder,
            3,
            1.2,
            "BLOCK = 3\nA = 0\n",
            kind="edits",
            base=2,
            warnings=["edit 2 was skipped: its old text is not in the kernel"],
        ),
    ]
    text, question = prompt(folder, attempts)
    assert (question.role, question.base, question.shown) == ("tuner", 3, [1, 2, 3])
    assert "## The kernel to edit (step 3)\n\n```python\nBLOCK = 3" in text
    assert "Note on that answer: edit 2 was skipped: its old text is not in the kernel." in text
    assert "## The best kernel so far (step 1)\n\n```python\nBLOCK = 1" in text
    assert "C[0, 0] is 1, expected 2" in text
    assert "-BLOCK = 1\n+BLOCK = 2" in text
    assert "Speedup 1.2x" in text
    assert text == prompt(folder, attempts)[0]


def test_memory_bounds_the_history(folder: Path) -> None:
    attempts = [add_step(folder, number, float(number), f"STEP = {number}\n") for number in range(1, 6)]
    text, question = prompt(folder, attempts, CONFIG.model_copy(update={"max_memory_round": 2}))
    assert question.shown == [4, 5]
    assert "### Step 4" in text
    assert "### Step 3" not in text


def test_a_template_of_the_users_own_comes_first(folder: Path, tmp_path: Path) -> None:
    write_text(tmp_path / "mine" / "proposer.md.j2", "Only {{ definition.name }}.")
    config = CONFIG.model_copy(update={"prompts_path": str(tmp_path / "mine")})
    assert prompt(folder, [], config)[0] == "Only gemm_n128_k256.\n"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ no_such_thing }}", "template 'proposer.md.j2': 'no_such_thing' is undefined"),
        ("{{ definition.no_such_field }}", "has no attribute 'no_such_field'"),
        ("{% if %}", "proposer.md.j2, line 1: Expected an expression"),
        ("{% include 'none.j2' %}", "template 'none.j2' is in none of:"),
    ],
)
def test_what_is_wrong_with_a_template(folder: Path, tmp_path: Path, template: str, told: str) -> None:
    write_text(tmp_path / "mine" / "proposer.md.j2", template)
    with pytest.raises(UserError) as caught:
        prompt(folder, [], CONFIG.model_copy(update={"prompts_path": str(tmp_path / "mine")}))
    assert told in str(caught.value)


def test_a_long_error_keeps_its_head_and_most_of_its_tail() -> None:
    text = shorten("a" * 1000 + "b" * 1000, 400)
    assert text.startswith("a" * 100 + "\n[... 1600 characters left out ...]\n")
    assert text.endswith("b" * 300)


def test_a_missing_file_of_a_step_says_how_to_make_it_again(folder: Path) -> None:
    attempts = [add_step(folder, 1, 1.5, "A = 0\n")]
    (folder / "step_1" / "evaluation.json").unlink()
    with pytest.raises(UserError, match=r"step_1/evaluation\.json: is missing; make it again with `snakemake"):
        prompt(folder, attempts)
