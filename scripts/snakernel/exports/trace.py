"""FlashInfer-Trace: solutions/ and traces/ as a dataset has them, ready to be copied into one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from snakernel.config import Config
from snakernel.evaluation.solution import solution_json
from snakernel.evaluation.verdict import Evaluation, Status, WorkloadResult
from snakernel.exports import Finished, author, path_segment
from snakernel.files import read_text, write_text
from snakernel.history import Step

STATUS = {Status.REJECTED: "RUNTIME_ERROR"}
"""What flashinfer-bench has no word for: a kernel that the guards refused is none that may be used."""


def write_task(folder: Path, found: Finished, config: Config) -> int:
    """Write a task's kernels as solutions/{author}/{op_type}/{definition}/{name}.json and their verdicts as
    traces/{author}/{op_type}/{definition}.jsonl, a line a workload; returns how many kernels."""
    lines = read_text(found.folder / "workloads.jsonl").splitlines()
    workloads = {workload["uuid"]: workload for workload in map(json.loads, filter(str.strip, lines))}
    definition, op_type = found.task.definition, found.task.op_type
    traces: dict[str, list[str]] = {}
    kernels = found.kernels(config.export_kernels)
    for one in kernels:
        name = author(config, one)
        text = solution_json(found.definition, one.kernel, author=name, description=describe(one))
        solution = json.loads(text)["name"]
        write_text(folder / "solutions" / path_segment(name) / op_type / definition / f"{solution}.json", text)
        traces.setdefault(path_segment(name), []).extend(
            json.dumps(
                {"definition": definition, "workload": workloads[uuid], "solution": solution, "evaluation": evaluation}
            )
            for uuid, evaluation in evaluations(one.evaluation, list(workloads))
        )
    for name, records in traces.items():
        write_text(folder / "traces" / name / op_type / f"{definition}.jsonl", "".join(f"{one}\n" for one in records))
    return len(kernels)


def describe(one: Step) -> str:
    """What a solution says of itself."""
    evaluation = one.evaluation
    verdict = (
        f"speedup {evaluation.speedup:.3g} over the reference" if evaluation.correct else f"{evaluation.status.value}"
    )
    return f"Step {one.number} of a snakernel run, judged on {evaluation.device.name}: {verdict}."


def evaluations(evaluation: Evaluation, uuids: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """A verdict as flashinfer-bench's evaluations, one a workload that was judged.

    A kernel that was refused or could not be built has no record of workloads: each of ``uuids`` gets its status.
    """
    records = evaluation.workloads or [
        WorkloadResult(uuid=uuid, axes={}, status=evaluation.status, error=evaluation.error) for uuid in uuids
    ]
    return [(one.uuid, _evaluation(evaluation, one)) for one in records if one.status is not Status.NOT_RUN]


def _evaluation(evaluation: Evaluation, one: WorkloadResult) -> dict[str, Any]:
    passed = one.status is Status.PASSED
    correctness = performance = None
    if passed or one.status is Status.INCORRECT_NUMERICAL:
        errors = {"max_relative_error": one.max_relative_error, "max_absolute_error": one.max_absolute_error}
        # flashinfer-bench reads NaN and infinity as texts.
        correctness = {name: value if _finite(value) else str(value or "NaN") for name, value in errors.items()}
    if passed and one.latency is not None:
        performance = {
            "latency_ms": one.latency.median_ms,
            "reference_latency_ms": one.reference_ms or 0.0,
            "speedup_factor": one.speedup or 0.0,
        }
    return {
        "status": STATUS.get(one.status, one.status.value),
        "environment": {"hardware": evaluation.device.name, "libs": evaluation.versions},
        "timestamp": evaluation.started,
        "log": one.error,
        "correctness": correctness,
        "performance": performance,
    }


def _finite(value: float | None) -> bool:
    return value is not None and abs(value) < float("inf")
