"""A task's best kernels once more: on many fresh draws, then timed against each other in turns.

The highest of many noisy speedups is the luckiest, and a few draws do not see a rare fault. best/confirmation.json says
which kernel stands, and why.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from snakernel.config import Config, read_config
from snakernel.errors import UserError, run_main
from snakernel.evaluation.call import call_evaluator
from snakernel.evaluation.verdict import Comparison, Confirmation, Contender, Evaluation
from snakernel.files import read_model, scratch_folder, write_model
from snakernel.history import Step, step

NEAR = 0.95
"""Kernels whose speedup is at least this share of the best one's are contenders."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--task-folder", type=Path, required=True)
    parser.add_argument("--step", type=int, required=True, help="the last step")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    folder = arguments.task_folder
    steps = [step(folder, number) for number in range(1, arguments.step + 1)]
    found = confirm(config, arguments.config, folder, steps)
    write_model(folder / "best" / "confirmation.json", found)
    for one in found.contenders:
        print(
            f"step {one.step}: speedup {one.speedup:.4g}, on {found.draws} fresh draws {one.status} {one.error}".strip()
        )
    for one in found.comparisons:
        print(
            f"latency of step {one.second} / step {one.first}: {one.ratio:.4f} ({one.low:.4f} to {one.high:.4f}, "
            f"{one.rounds} rounds in turns)"
        )
    print("no correct kernel" if found.step is None else f"best: step {found.step}")


def confirm(config: Config, config_path: Path, folder: Path, steps: list[Step]) -> Confirmation:
    """Judge the contenders again, and time those that stand against each other.

    Args:
        config: the run's configuration.
        config_path: where it is.
        folder: the task's folder.
        steps: all steps of the task.
    """
    ranked = sorted((one for one in steps if one.evaluation.correct), key=lambda one: -(one.evaluation.speedup or 0))
    found = Confirmation(task_id=folder.name, step=None, draws=config.confirm_draws, contenders=[], comparisons=[])
    if not config.confirm_draws:
        return found.model_copy(update={"step": ranked[0].number if ranked else None})
    standing: list[Step] = []
    seen: set[str] = set()
    with scratch_folder() as scratch:
        out = scratch / "out.json"
        for one in ranked:
            speedup = one.evaluation.speedup or 0.0
            near = standing and speedup >= NEAR * (standing[0].evaluation.speedup or 0.0)
            if len(standing) >= config.confirm_kernels or (standing and not near):
                break
            if one.evaluation.kernel_sha256 in seen:
                continue
            seen.add(one.evaluation.kernel_sha256)
            _call(config, config_path, folder, "confirm", out, kernel=one.folder / "kernel.py")
            verdict = read_model(out, Evaluation)
            found.contenders.append(
                Contender(step=one.number, speedup=speedup, status=verdict.status, error=verdict.error)
            )
            if verdict.correct:
                standing.append(one)
        best = standing[0] if standing else None
        for other in standing[1:]:
            assert best is not None
            kernels = {"first": best.folder / "kernel.py", "second": other.folder / "kernel.py"}
            _call(config, config_path, folder, "compare", out, **kernels)
            told = json.loads(out.read_text())
            if "error" in told:
                continue  # it failed only now: the verdicts decide
            comparison = Comparison(first=best.number, second=other.number, **told)
            found.comparisons.append(comparison)
            if comparison.high < 1:
                best = other
    return found.model_copy(update={"step": best.number if best else None})


def _call(config: Config, config_path: Path, folder: Path, action: str, out: Path, **files: Path) -> None:
    paths = {"config": config_path, "task_folder": folder, "out": out, **files}
    if call_evaluator(config, action, {name: str(path) for name, path in paths.items()}):
        raise UserError(f"{folder.name}: the evaluator failed; what it said is above")


if __name__ == "__main__":
    run_main(main)
