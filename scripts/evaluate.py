"""Judge one kernel: evaluation.json for a step of a run, or a table for a person.

In a run:      python scripts/evaluate.py --config CONFIG --task-folder FOLDER --kernel KERNEL --out evaluation.json
By hand:       python scripts/evaluate.py --definition rmsnorm_h256 --kernel kernel.py [--config CONFIG]
The second form needs no run, prints a line a workload and exits with 1 where the kernel is not correct.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from snakernel.config import Config, config_yaml, load_config, read_config
from snakernel.dataset import Task, check_task, read_definition, read_workloads
from snakernel.errors import UserError, run_main
from snakernel.evaluation.session import Session, evaluation_session, restart_for
from snakernel.evaluation.verdict import Evaluation, Reference
from snakernel.files import read_model, read_text, write_model, write_text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("config/config.yaml"), help="default: %(default)s")
    parser.add_argument("--kernel", type=Path, required=True, help="a Python file with a function run")
    parser.add_argument("--task-folder", type=Path, help="a task's folder in a run: its reference is used")
    parser.add_argument("--definition", help="by hand: name of a definition of the dataset")
    parser.add_argument("--backend", choices=["local", "cpu"], help="by hand: instead of the configured eval_backend")
    parser.add_argument("--out", type=Path, help="write the verdict here")
    arguments = parser.parse_args()
    if (arguments.task_folder is None) == (arguments.definition is None):
        parser.error("give either --task-folder (in a run) or --definition (by hand)")
    config = read_config(arguments.config)
    if arguments.backend:
        config = load_config(config.model_dump() | {"eval_backend": arguments.backend})
    kernel = read_text(arguments.kernel)
    with tempfile.TemporaryDirectory(prefix="snakernel-by-hand-") as scratch:
        folder = arguments.task_folder
        if folder is None:
            restart_for(config)
            folder = prepare_by_hand(config, arguments.definition, Path(scratch))
        with evaluation_session(config) as session:
            evaluation = judge_step(session, folder, kernel)
    if arguments.out is not None:
        write_model(arguments.out, evaluation)
    print_table(evaluation)
    return 0 if evaluation.correct or arguments.definition is None else 1


def judge_step(session: Session, folder: Path, kernel: str) -> Evaluation:
    """Judge against the reference that the run measured."""
    from snakernel.evaluation.judge import judge

    return judge(
        folder.name,
        read_definition(folder / "definition.json"),
        read_workloads(folder / "workloads.jsonl"),
        kernel,
        read_model(folder / "reference" / "reference.json", Reference),
        (folder / "reference").resolve(),
        session.settings,
        session.dataset,
        import_s=session.import_s,
    )


def prepare_by_hand(config: Config, name: str, scratch: Path) -> Path:
    """Make the folder of a task outside a run, with its reference measured.

    The reference is measured in a process of its own, since the candidate must be forked before CUDA starts.
    """
    files = sorted((config.dataset / "definitions").glob(f"*/{name}.json"))
    if not files:
        known = sorted(path.stem for path in (config.dataset / "definitions").glob("*/*.json"))
        raise UserError(f"{config.dataset}: no definition {name!r}; there are: {', '.join(known) or 'none'}")
    task = Task(files[0].parent.name, name)
    definition, workloads = check_task(task, config.dataset, config.max_workloads)
    folder = scratch / task.name
    write_text(folder / "definition.json", definition.model_dump_json())
    write_text(folder / "workloads.jsonl", "".join(one.model_dump_json() + "\n" for one in workloads))
    write_text(scratch / "config.yaml", config_yaml(config))
    script = Path(__file__).with_name("measure_reference.py")
    command = [sys.executable, str(script), "--config", str(scratch / "config.yaml"), "--task-folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{name}: the reference cannot be measured: {done.stderr.strip()[-500:]}")
    return folder


def print_table(evaluation: Evaluation) -> None:
    """The verdict, a line a workload."""
    print(f"{evaluation.task_id}: {evaluation.status} on {evaluation.device.name} ({evaluation.timing})")
    if evaluation.error:
        print(evaluation.error)
    if evaluation.workloads:
        rows = [("axes", "status", "ms", "95 % interval", "reference ms", "speedup", "max abs err", "max rel err")]
        for one in evaluation.workloads:
            axes = " ".join(f"{axis}={value}" for axis, value in one.axes.items())
            latency = one.latency
            rows.append(
                (
                    axes,
                    one.status.value,
                    f"{latency.median_ms:.5f}" if latency else "",
                    f"{latency.low_ms:.5f} to {latency.high_ms:.5f}" if latency else "",
                    f"{one.reference_ms:.5f}" if one.reference_ms else "",
                    f"{one.speedup:.3f}" if one.speedup else "",
                    f"{one.max_absolute_error:.3g}" if one.max_absolute_error is not None else "",
                    f"{one.max_relative_error:.3g}" if one.max_relative_error is not None else "",
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if evaluation.speedup is not None:
        print(
            f"speedup {evaluation.speedup:.3f} (geometric mean {evaluation.speedup_geomean:.3f}), "
            f"latency {evaluation.latency_ms:.5f} ms"
        )
    print("seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in evaluation.seconds.items()))


if __name__ == "__main__":
    run_main(main)
