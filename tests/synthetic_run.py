"""The files of a run that nobody ran: any number of tasks and steps, for tests of what reads a whole run.

Verdicts, speedups, tokens and prices are drawn from a seed; kernels and answers are the demo's, changed from step to
step, so that texts have the sizes of real ones.
"""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from conftest import REPOSITORY
from snakernel.config import Config, config_yaml, load_config
from snakernel.dataset import read_tasks
from snakernel.evaluation.verdict import (
    CompiledKernel,
    Conditions,
    Confirmation,
    Contender,
    Device,
    Evaluation,
    Latency,
    Reference,
    ReferenceWorkload,
    Settings,
    Status,
    Summary,
    WorkloadResult,
    conclude,
)
from snakernel.extraction import Extraction, find_kernel
from snakernel.files import write_model, write_text
from snakernel.history import step
from snakernel.llm.base import Answer, Question, Request, Usage
from snakernel.report.starts import record_start
from snakernel.search import create_strategy
from snakernel.summary import summarize, summary_csv

MINI = REPOSITORY / "datasets" / "mini"
DEVICE = Device(
    kind="cuda",
    name="NVIDIA Test GPU",
    uuid="GPU-00000000-1111-2222-3333-444444444444",
    driver="570.1",
    capability="9.0",
    memory_gb=85.0,
)
VERSIONS = {"python": "3.11.7", "torch": "2.13.0", "triton": "3.7.1", "flashinfer-bench": "0.1.2"}
FAILURES = {
    Status.INCORRECT_NUMERICAL: "output 'output': {n} of 8704 elements (0.02 %) are wrong: output[2, {n}] is 1, not 2",
    Status.RUNTIME_ERROR: "Traceback (most recent call last):\n  File main.py, line {n}, in run\nTypeError: no {n}",
    Status.COMPILE_ERROR: "main.py, line {n}: invalid syntax",
    Status.TIMEOUT: "building the kernel took more than 60 s",
}
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


def make_run(
    folder: Path, tasks: int, steps: int, workloads: int = 12, model: str = "test-model-2026-01-01", **keys: object
) -> Config:
    """Write a run's files below ``folder``, which becomes a checkout's working folder, and return its configuration.

    Args:
        folder: gets datasets/synthetic, tasks.txt, config.yaml and results/.
        tasks: how many.
        steps: of each task.
        workloads: of each task.
        model: the model as served.
        keys: of the configuration, beside those.
    """
    seed = keys.get("seed", 0)
    rng = random.Random(f"{seed} {model}")
    names = [f"rmsnorm_test_{number}" for number in range(1, tasks + 1)]
    make_dataset(folder / "datasets" / "synthetic", names, workloads)
    write_text(folder / "tasks.txt", f"rmsnorm, {', '.join(names)}\n")
    config = load_config(
        {
            "test_source": "synthetic",
            "dataset_root": str(folder / "datasets" / "synthetic"),
            "tasks_path": str(folder / "tasks.txt"),
            "save_path": str(folder / "results"),
            "total_steps": steps,
            "api_type": "claude",
            "model_name": "test-model",
            **keys,
        }
    )
    write_text(folder / "config.yaml", yaml.safe_dump(config.model_dump(exclude_defaults=True), sort_keys=False))
    write_text(config.results / "config.yaml", config_yaml(config))
    record_start(config.results, "9.27.1", ["--configfile", "config.yaml"])
    starts = config.results / "starts.jsonl"
    starts.write_text(json.dumps(json.loads(starts.read_text()) | {"time": BEGUN.isoformat()}) + "\n")
    found = read_tasks(Path(config.tasks_path), config.dataset)
    for task in found:
        make_task(config, task.name, task.definition, workloads, model, rng)
    summary = summarize(config, found)
    write_model(config.results / "summary.json", summary)
    write_text(config.results / "summary.csv", summary_csv(summary))
    return config


def make_dataset(root: Path, names: list[str], workloads: int) -> None:
    """A dataset of copies of one definition."""
    source = json.loads((MINI / "definitions" / "rmsnorm" / "rmsnorm_h256.json").read_text())
    for name in names:
        write_text(root / "definitions" / "rmsnorm" / f"{name}.json", json.dumps(source | {"name": name}))
        lines = [
            json.dumps(
                {
                    "definition": name,
                    "workload": {
                        "uuid": workload_uuid(name, number),
                        "axes": {"batch_size": 2**number},
                        "inputs": {"hidden_states": {"type": "random"}, "weight": {"type": "random"}},
                    },
                }
            )
            for number in range(workloads)
        ]
        write_text(root / "workloads" / "rmsnorm" / f"{name}.jsonl", "\n".join(lines) + "\n")


def workload_uuid(name: str, number: int) -> str:
    """A workload's name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{number}"))


def make_task(config: Config, name: str, definition: str, workloads: int, model: str, rng: random.Random) -> None:
    """One task's files: what a run leaves of it."""
    folder = config.results / name
    dataset = config.dataset
    source = (dataset / "definitions" / "rmsnorm" / f"{definition}.json").read_text()
    write_text(folder / "definition.json", source)
    write_text(folder / "reference.py", json.loads(source)["reference"])
    write_text(folder / "workloads.jsonl", (dataset / "workloads" / "rmsnorm" / f"{definition}.jsonl").read_text())
    settings = Settings.of(config)
    references = [0.01 * 1.5**number * rng.uniform(0.9, 1.1) for number in range(workloads)]
    reference = Reference(
        task_id=name,
        definition_sha256=hashlib.sha256(source.encode()).hexdigest()[:16],
        device=DEVICE,
        versions=VERSIONS,
        timing="CUDA events",
        settings=settings,
        baseline="flashinfer_wrapper",
        workloads=[
            ReferenceWorkload(
                uuid=workload_uuid(definition, number),
                axes={"batch_size": 2**number},
                latency=latency(ms, rng),
                baseline=latency(ms / 2, rng),
                floor_ms=ms / 20,
                output_bytes=512 * 2**number,
                expected=[],
                stored=False,
            )
            for number, ms in enumerate(references)
        ],
    )
    write_model(folder / "reference" / "reference.json", reference)
    (folder / "reference" / "expected").mkdir(exist_ok=True)
    texts = [path.read_text() for path in sorted((MINI / "answers").glob("*/*.md"))]
    strategy = create_strategy(config, name)
    state = strategy.start()
    speed = rng.uniform(0.6, 1.2)
    base_prompt = (REPOSITORY / "prompts" / "tuner.md.j2").read_text() * 4
    for number in range(1, strategy.steps + 1):
        one = step(folder, number)
        before = state
        text = texts[(number * 7 + len(name)) % len(texts)]
        kernel = f"# kernel of step {number}, {rng.random()}\n{find_kernel(text)[0] or ''}"
        role = strategy.role(number, before)
        base = strategy.base(number, before)
        edits = role == "tuner" and rng.random() < 0.7
        if edits:
            kernel = f"{step(folder, base).kernel}\n# an edit in step {number}\n"
        asked = BEGUN + timedelta(minutes=number)
        answer = Answer(
            api_type="claude",
            request=Request(
                prompt=f"# Prompt of step {number} of {name}\n{base_prompt}",
                model="test-model",
                temperature=0.6,
                max_completion_tokens=16384,
                question=Question(
                    role=role,
                    base=base,
                    shown=[attempt.step for attempt in strategy.shown(number, before)],
                ),
            ),
            text=text,
            model=model,
            stop_reason="end_turn",
            request_id=f"req_{name}_{number}",
            usage=Usage(input_tokens=rng.randrange(3000, 9000), output_tokens=rng.randrange(1000, 6000)),
            cost_usd=round(rng.uniform(0.01, 0.12), 4),
            started=asked.isoformat(),
            ended=(asked + timedelta(seconds=rng.uniform(10, 50))).isoformat(),
        )
        write_model(config.results / "answers" / name / f"{number}.json", answer)
        write_model(one.folder / "response.json", answer)
        write_text(one.folder / "prompt.md", answer.request.prompt)
        write_model(one.folder / "prompt.json", answer.request.question)
        write_text(one.folder / "kernel.py", kernel)
        kind = "edits" if edits else "kernel"
        write_model(one.folder / "extraction.json", Extraction(kind=kind, base=base if edits else None))
        speed *= rng.uniform(0.95, 1.15)
        status = Status.PASSED if rng.random() < 0.65 else rng.choice(list(FAILURES))
        judged = asked + timedelta(seconds=55)
        evaluation = verdict(name, kernel, status, speed, reference, judged, rng)
        write_model(one.folder / "evaluation.json", evaluation)
        state = strategy.update(before, one.attempt())
        write_model(one.folder / "best.json", state)
    right = [attempt.step for attempt in [state.best] if attempt is not None and attempt.correct]
    best = step(folder, right[0] if right else strategy.steps)
    confirmation = Confirmation(
        task_id=name,
        step=best.number if right else None,
        draws=20,
        contenders=[Contender(step=n, speedup=step(folder, n).evaluation.speedup, status=Status.PASSED) for n in right],
        comparisons=[],
    )
    write_model(folder / "best" / "confirmation.json", confirmation)
    write_text(folder / "best" / "kernel.py", best.kernel)
    write_model(folder / "best" / "evaluation.json", best.evaluation)
    write_text(folder / "best" / "solution.json", "{}\n")


def latency(ms: float, rng: random.Random) -> Latency:
    """A latency with an interval of a few per cent."""
    return Latency.of([ms * rng.uniform(0.97, 1.03) for _ in range(30)], [0.004] * 30)


def verdict(
    name: str, kernel: str, status: Status, speed: float, reference: Reference, judged: datetime, rng: random.Random
) -> Evaluation:
    """A verdict; one that is not PASSED fails on the second workload."""
    built = status is not Status.COMPILE_ERROR
    error = FAILURES[status].format(n=rng.randrange(100)) if status in FAILURES else ""
    results = []
    for number, one in enumerate(reference.workloads if built else []):
        passed = status is Status.PASSED or number == 0
        found = latency(one.latency.median_ms / speed, rng) if passed else None
        results.append(
            WorkloadResult(
                uuid=one.uuid,
                axes=one.axes,
                status=Status.PASSED if passed else status if number == 1 else Status.NOT_RUN,
                latency=found,
                reference_ms=one.latency.median_ms,
                baseline_ms=one.baseline.median_ms if one.baseline else None,
                floor_ms=one.floor_ms,
                speedup=one.latency.median_ms / found.median_ms if found else None,
                max_absolute_error=0.004 if passed else None,
                max_relative_error=0.002 if passed else None,
                error="" if passed else error if number == 1 else "not run: another workload failed",
            )
        )
    summary = conclude(results) if results else Summary(status=status, error=error)
    return Evaluation(
        task_id=name,
        kernel_sha256=hashlib.sha256(kernel.encode()).hexdigest(),
        status=status,
        compiled=built,
        **{name: value for name, value in vars(summary).items() if name != "status"},
        workloads=results,
        device=DEVICE,
        conditions=Conditions(sm_clock_mhz=1980, memory_clock_mhz=2619, temperature_c=41, power_w=310.0),
        kernels=[CompiledKernel(name="_kernel", registers=64, spills=0, shared_bytes=16384, warps=4, stages=3)],
        versions=VERSIONS,
        timing="CUDA events",
        settings=reference.settings,
        isolation=["process group of its own"],
        seconds={"total": 2.0},
        started=judged.isoformat(),
    )
