"""Prompts: what they carry, what a user may replace, and what is wrong with a template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from conftest import REPOSITORY
from snakernel.config import Feedback, load_config
from snakernel.dataset import Task
from snakernel.errors import UserError
from snakernel.evaluation.verdict import (
    CompiledKernel,
    Device,
    Evaluation,
    Latency,
    Profile,
    ProfiledKernel,
    Reference,
    ReferenceWorkload,
    Settings,
    Status,
    WorkloadResult,
)
from snakernel.extraction import Extraction
from snakernel.feedback import occupancy, shorten, slowest, without_noise
from snakernel.files import read_model, write_model, write_text
from snakernel.llm.base import split
from snakernel.prompts import check_lessons, find_lessons, render
from snakernel.search import Attempt, Plan, create_strategy

CONFIG = load_config({"gpu_name": "B200", "gpu_architecture": "Blackwell", "eval_backend": "cpu", "total_steps": 9})
DEVICE = Device(kind="cpu", name="a processor")
VERSIONS = {"python": "3.11", "torch": "2.13", "triton": "3.7.1"}
TASK = "gemm_gemm_n128_k256"


def latency(ms: float) -> Latency:
    return Latency(median_ms=ms, low_ms=ms, high_ms=ms, calls=9)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A task's folder with a definition and a reference of two workloads."""
    return make_task(tmp_path / TASK)


def make_task(folder: Path) -> Path:
    """Write a definition and a reference of two workloads into a task's folder."""
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


def prompt(folder: Path, attempts: list[Attempt], config=CONFIG, lessons=()) -> tuple[str, object]:
    strategy = create_strategy(config, TASK)
    state = strategy.start()
    for attempt in attempts:
        state = strategy.update(state, attempt)
    return render(config, strategy, state, folder, len(attempts) + 1, lessons)


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


def test_what_does_not_change_is_the_systems_part(folder: Path) -> None:
    """Of a proposal and of every tuning it is the same, so that services find it in their caches."""
    proposal, _ = prompt(folder, [])
    tuning, _ = prompt(folder, [add_step(folder, 1, 1.5, "BLOCK = 1\n")])
    assert split(proposal)[0] == split(tuning)[0]
    for part in ("gemm_n128_k256", "| 25,700 |", "Do not write to inputs"):
        assert part in split(proposal)[0]
    assert "BLOCK = 1" in split(tuning)[1] and "## The operator" not in split(tuning)[1]


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


def test_a_planner_asks_for_a_plan_and_lists_what_was_tried(folder: Path) -> None:
    config = CONFIG.model_copy(update={"planner": True})
    text, _ = prompt(folder, [], config)
    assert "<idea>" in text and "Ideas tried" not in text
    attempts = [
        add_step(folder, 1, 1.5, "A = 1\n").model_copy(update={"plan": Plan(bottleneck="reads", idea="one pass")}),
        add_step(folder, 2, None, "A = 2\n").model_copy(update={"plan": Plan(bottleneck="", idea="bf16"), "base": 1}),
    ]
    text, question = prompt(folder, attempts, config)
    assert "- Step 1: one pass (against: reads) -> correct, 1.5x\n" in text
    assert "- Step 2, on the kernel of step 1: bf16 -> not correct\n" in text
    assert question.ideas == [1, 2]
    for said in ("<idea>", "Ideas tried"):
        assert said not in prompt(folder, attempts)[0]


def test_a_duplicate_is_named_and_its_code_is_not_shown_again(folder: Path) -> None:
    config = CONFIG.model_copy(update={"agent_type": "evolve", "reject_duplicates": True})
    attempts = [
        add_step(folder, 1, 1.5, "A = 1\n"),
        add_step(folder, 2, None, "A = 1  # again\n", duplicate_of=1).model_copy(update={"duplicate_of": 1}),
    ]
    text, _ = prompt(folder, attempts, config)
    assert "Rejected: but for comments and layout it is the kernel of step 1." in text
    assert "# again" not in text


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("latencies", "| M=1 | 50 | 100 | 70 | 20 | 1.5x |"),
        ("baseline", "| M=1 | 100 | 80 | 40 |"),
        ("roofline", "| M=1 | 100 | 80 | 40 |"),
        ("resources", "| mm | 100 | 2 | 48 | 8 | 3 | 25 % |"),
        ("profile", "| mm | 12.5 | 80 % | 75 % | 9 % |  | 50 % | 3 % | shared memory 61 %; a barrier 9 % |"),
        ("errors", "C[0, 0] is 1, expected 2"),
        ("notes", "Note on that answer: edit 2"),
        ("notes", "Note: the host is slow."),
    ],
)
def test_each_part_of_the_feedback_can_be_switched_off(folder: Path, part: str, told: str) -> None:
    path = folder / "reference" / "reference.json"
    reference = read_model(path, Reference)
    rows = [one.model_copy(update={"baseline": latency(0.08), "floor_ms": 0.04}) for one in reference.workloads]
    write_model(path, reference.model_copy(update={"baseline": "flashinfer", "workloads": rows}))
    attempts = [
        add_step(folder, 1, None, "A = 1\n", "C[0, 0] is 1, expected 2"),
        add_step(folder, 2, 1.5, "A = 2\n", warnings=["edit 2"]),
    ]
    path = folder / "step_2" / "evaluation.json"
    evaluation = read_model(path, Evaluation)
    kernel = CompiledKernel(name="mm", registers=100, spills=2, shared_bytes=48 * 1024, warps=8, stages=3)
    launch = ProfiledKernel(name="mm", time_us=12.5, memory=80, dram=75, compute=9, occupancy=50, l2_hits=3)
    launch.stalls = {"shared memory": 61.2, "a barrier": 9}
    told_more = {
        "workloads": [one.model_copy(update={"baseline_ms": 0.07, "floor_ms": 0.02}) for one in evaluation.workloads],
        "device": evaluation.device.model_copy(update={"capability": "9.0"}),
        "kernels": [kernel],
        "profile": Profile(axes={"M": 1}, kernels=[launch], launches=1),
        "notes": ["the host is slow"],
    }
    write_model(path, evaluation.model_copy(update=told_more))
    everything = list(get_args(Feedback))
    assert told in prompt(folder, attempts, CONFIG.model_copy(update={"feedback": everything}))[0]
    rest = [one for one in everything if one != part]
    assert told not in prompt(folder, attempts, CONFIG.model_copy(update={"feedback": rest}))[0]


def test_occupancy() -> None:
    """By the programming guide: 100 registers are 104 a thread, 26,624 a block of 8 warps, so 2 blocks of 64 warps."""
    kernel = CompiledKernel(name="", registers=100, spills=0, shared_bytes=0, warps=8, stages=1)
    assert occupancy(kernel, "9.0") == 0.25
    assert occupancy(kernel.model_copy(update={"registers": 32}), "9.0") == 1.0
    assert occupancy(kernel.model_copy(update={"registers": 32, "shared_bytes": 100 * 1024}), "9.0") == 0.25
    assert occupancy(kernel.model_copy(update={"registers": 16, "warps": 1}), "9.0") == 0.5
    assert occupancy(kernel, "7.5") is occupancy(kernel, None) is None


def test_an_error_is_cut_to_what_helps() -> None:
    text = without_noise(
        'Traceback (most recent call last):\n  File "/x/site-packages/triton/jit.py", line 1, in run\n    kernel = 1\n'
        '  File "main.py", line 9, in run\n    k[grid](x)\nCompilationError: at 3:4:\n    x = tl.dot(a)\n    ^\n'
        "module attributes {a}\n  %0 = tt.load %arg0\nsame\nsame\n"
    )
    assert text.splitlines() == [
        "Traceback (most recent call last):",
        '  File "main.py", line 9, in run',
        "    k[grid](x)",
        "CompilationError: at 3:4:",
        "    x = tl.dot(a)",
        "    ^",
        "same",
        "[5 lines of libraries and of the compiler's own code left out]",
    ]
    assert without_noise("C[0] is 1\n\n\nexpected 2") == "C[0] is 1\n\n\nexpected 2"


def test_of_many_workloads_those_are_shown_that_lose_most() -> None:
    rows = [
        WorkloadResult(uuid=str(n), axes={"M": n}, status=Status.PASSED, speedup=(n * 37 % 101) / 10)
        for n in range(101)
    ]
    shown = slowest(rows)
    assert sorted(one.speedup for one in shown) == [n / 10 for n in range(40)]
    assert [one.axes["M"] for one in shown] == sorted(one.axes["M"] for one in shown)


def test_lessons_are_the_best_kernels_of_sibling_operators(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "other run"
    for task, op_type, name, speedup in (
        ("gemm_gemm_n128_k256", "gemm", "gemm_n128_k256", 1.25),
        ("gemm_gemm_n128_k512", "gemm", "gemm_n128_k512", 2.5),
        ("gemm_wrong", "gemm", "gemm_n128_k999", None),
        ("gemm_other", "gemm", "matmul", 9.0),
        ("rmsnorm_a", "rmsnorm", "gemm_n128_k256", 3.0),
    ):
        write_text(run / task / "definition.json", json.dumps({"op_type": op_type, "name": name}))
        add_step(run / task, 1, speedup, "")
        (run / task / "step_1").rename(run / task / "best")
        write_text(run / task / "best" / "kernel.py", f"LESSON = {task!r}\n")
    config = CONFIG.model_copy(update={"lessons_from": str(run)})
    check_lessons(config)
    task = Task("gemm", "gemm_n128_k256")
    text, question = prompt(folder, [], config, find_lessons(config, [task], task))
    assert question.lessons == ["gemm_gemm_n128_k256", "gemm_gemm_n128_k512"]
    assert "It is for this very operator: speedup 1.25x" in text
    assert "A sibling of this operator: speedup 2.5x" in text
    assert text.count("LESSON = ") == 2
    with pytest.raises(UserError, match="holds no"):
        check_lessons(CONFIG.model_copy(update={"lessons_from": str(tmp_path / "none")}))
    own = CONFIG.model_copy(
        update={"save_path": str(tmp_path), "run": "other", "lessons_from": str(tmp_path / "other")}
    )
    with pytest.raises(UserError, match="this run itself"):
        check_lessons(own)


def test_siblings_are_the_tasks_before_that_are_likest(folder: Path, tmp_path: Path) -> None:
    names = [("gemm", "matmul"), ("gemm", "gemm_n128_k999"), ("gemm", "gemm_n128_k512"), ("rmsnorm", "gemm_n128_k2")]
    *before, task, _ = tasks = [Task(*one) for one in [*names, ("gemm", "gemm_n128_k256"), ("gemm", "gemm_n128_k25")]]
    assert find_lessons(CONFIG, tasks, task) == []
    config = CONFIG.model_copy(update={"lessons_from_siblings": True, "save_path": str(tmp_path), "run": "own"})
    lessons = find_lessons(config, tasks, task)
    assert lessons == [tmp_path / "own" / "gemm_gemm_n128_k512", tmp_path / "own" / "gemm_gemm_n128_k999"]
    assert find_lessons(config, tasks, before[1]) == [tmp_path / "own" / "gemm_matmul"]
    assert find_lessons(config, tasks, before[0]) == find_lessons(config, tasks, before[3]) == []
    for lesson, speedup in zip(lessons, (None, 2.0), strict=True):
        write_text(lesson / "definition.json", json.dumps({"op_type": "gemm", "name": lesson.name}))
        add_step(lesson, 1, speedup, f"LESSON = {lesson.name!r}\n")
        (lesson / "step_1").rename(lesson / "best")
    text, question = prompt(folder, [], config, lessons)
    assert question.lessons == ["gemm_gemm_n128_k999"]
    assert text.count("LESSON = ") == 1 and "LESSON = 'gemm_gemm_n128_k999'" in text


def test_a_question_names_the_model_that_it_is_for(folder: Path) -> None:
    config = CONFIG.model_copy(update={"models": {"a": 1.0, "b": 3.0}})
    question = prompt(folder, [], config)[1]
    assert question.model in ("a", "b")
    assert question.model_scores == {"a": 0.25, "b": 0.75}
