"""Time the kernels of two steps of a task against each other, in turns: what a search, or a sweep, has gained.

python scripts/compare_steps.py --run results/RUN [--first 1] [--second N] [--task TASK ...]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from snakernel.config import read_config
from snakernel.errors import UserError, run_main
from snakernel.evaluation.call import call_evaluator
from snakernel.evaluation.verdict import Comparison, Confirmation
from snakernel.files import read_model, scratch_folder
from snakernel.history import step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--task", nargs="+", help="tasks; default: all that are finished")
    parser.add_argument("--first", type=int, default=1, help="a step; default: %(default)s")
    parser.add_argument("--second", type=int, help="another; default: the one that the task ended with")
    arguments = parser.parse_args()
    config_path = arguments.run / "config.yaml"
    config = read_config(config_path)
    found = sorted(path.parents[1].name for path in arguments.run.glob("*/best/confirmation.json"))
    tasks = arguments.task or found
    if not tasks:
        raise UserError(f"{arguments.run}: holds no finished task")
    for task in tasks:
        folder = arguments.run / task
        second = arguments.second or read_model(folder / "best" / "confirmation.json", Confirmation).step
        if second in (None, arguments.first):
            print(f"{task}: " + ("no correct kernel" if second is None else f"it ended with step {second} itself"))
            continue
        with scratch_folder() as scratch:
            out = scratch / "out.json"
            kernels = {
                name: step(folder, number).folder / "kernel.py"
                for name, number in (("first", arguments.first), ("second", second))
            }
            paths = {"config": config_path, "task_folder": folder, "out": out, **kernels}
            if call_evaluator(config, "compare", {name: str(path) for name, path in paths.items()}):
                raise UserError(f"{task}: the evaluator failed; what it said is above")
            told = json.loads(out.read_text())
        if "error" in told:
            print(f"{task}: step {(arguments.first, second)[told['failed']]} failed: {told['error']}")
            continue
        one = Comparison(first=arguments.first, second=second, **told)
        print(
            f"{task}: step {second} takes {one.ratio:.4f} ({one.low:.4f} to {one.high:.4f}) of the time of step "
            f"{one.first}, {one.rounds} rounds in turns"
        )


if __name__ == "__main__":
    run_main(main)
