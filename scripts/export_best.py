"""Lay out a task's best kernel: best/kernel.py, its verdict, and a Solution that flashinfer-bench reads."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from snakernel.errors import run_main
from snakernel.evaluation.solution import solution_json
from snakernel.evaluation.verdict import Confirmation, Evaluation
from snakernel.files import read_model, read_text, write_model, write_text
from snakernel.history import step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task-folder", type=Path, required=True)
    parser.add_argument("--step", type=int, required=True, help="the last step")
    arguments = parser.parse_args()
    folder = arguments.task_folder / "best"
    confirmation = read_model(folder / "confirmation.json", Confirmation)
    best = step(arguments.task_folder, arguments.step).state.best
    # Where no step was asked at all, what the last one says of that.
    number = confirmation.step or (best.step if best else arguments.step)
    chosen = step(arguments.task_folder, number)
    evaluation = chosen.evaluation
    if confirmation.step is None and evaluation.correct:
        evaluation = refuted(evaluation, confirmation)
    definition = json.loads(read_text(arguments.task_folder / "definition.json"))
    verdict = (
        f"speedup {evaluation.speedup:.3g} over the reference"
        if evaluation.correct
        else f"NOT CORRECT: {evaluation.status.value}"
    )
    solution = solution_json(
        definition,
        chosen.kernel,
        author="nobody" if chosen.skipped else chosen.response.model,
        description=f"Step {chosen.number} of a snakernel run, judged on {evaluation.device.name}: {verdict}.",
    )
    write_text(folder / "kernel.py", chosen.kernel)
    write_model(folder / "evaluation.json", evaluation)
    write_text(folder / "solution.json", solution)
    print(f"step {chosen.number}: {verdict}")


def refuted(evaluation: Evaluation, confirmation: Confirmation) -> Evaluation:
    """The verdict on a kernel that was right in its step and wrong on fresh draws: what is known since."""
    contender = confirmation.contenders[0]
    return evaluation.model_copy(
        update={
            "status": contender.status,
            "correct": False,
            "speedup": None,
            "speedup_geomean": None,
            "speedup_over_baseline": None,
            "latency_ms": None,
            "error": f"right in step {contender.step}, but on {confirmation.draws} fresh draws: {contender.error}",
        }
    )


if __name__ == "__main__":
    run_main(main)
