"""Judge one kernel: evaluation.json for a step of a run, or a table for a person.

In a run:      python scripts/evaluate.py --config CONFIG --task-folder FOLDER --kernel KERNEL --out evaluation.json
By hand:       python scripts/evaluate.py --definition rmsnorm_h256 --kernel kernel.py [--config CONFIG]
The second form needs no run, prints a line a workload and exits with 1 where the kernel is not correct.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from snakernel.errors import UserError, run_main
from snakernel.files import read_model, write_text
from snakernel.skipping import duplicate_of, reject_duplicate, skip_reason, skip_verdict

if TYPE_CHECKING:
    from snakernel.config import Config
    from snakernel.evaluation.verdict import Evaluation


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("config/config.yaml"), help="default: %(default)s")
    parser.add_argument(
        "--kernel", type=Path, required=True, help="a Python file with a function run, or a Solution (.json)"
    )
    parser.add_argument("--task-folder", type=Path, help="a task's folder in a run: its reference is used")
    parser.add_argument("--definition", help="by hand: name of a definition of the dataset")
    parser.add_argument(
        "--backend", choices=["local", "cpu", "modal"], help="by hand: instead of the configured eval_backend"
    )
    parser.add_argument("--against", type=Path, help="by hand: another kernel, timed against this one in turns")
    parser.add_argument("--out", type=Path, help="write the verdict here")
    arguments = parser.parse_args()
    if (arguments.task_folder is None) == (arguments.definition is None):
        parser.error("give either --task-folder (in a run) or --definition (by hand)")
    if not arguments.kernel.is_file():
        raise UserError(f"{arguments.kernel}: no such file")
    if arguments.task_folder is not None:
        if arguments.out is None:
            parser.error("--task-folder needs --out")
        if why := skip_reason(arguments.kernel.parent):
            skip_verdict(arguments.task_folder, arguments.kernel, why, arguments.out)
            return 0
        if same := duplicate_of(arguments.kernel.parent):
            reject_duplicate(arguments.task_folder, arguments.kernel, same, arguments.out)
            return 0
        from snakernel.worker import run_in_worker  # here and below: a skipped step is not to wait for it

        # The worker of the machine that the run was started on; where the job is on another, it is done sooner alone.
        if (code := run_in_worker(arguments.config, start=False)) is not None:
            return code
    from snakernel.config import config_yaml, load_config, read_config

    config = read_config(arguments.config)
    if arguments.backend:
        config = load_config(config.model_dump() | {"eval_backend": arguments.backend})
    if arguments.task_folder is not None:
        if (arguments.kernel.parent / "extraction.json").exists():
            from snakernel.history import Step

            # A step's kernel is the model's: nobody else's gets its verdict.
            _ = Step(arguments.kernel.parent).kernel
        return judge(config, arguments.config, arguments.task_folder, arguments.kernel, arguments.out)
    shared = config.results if config.slurm_job else None  # the job is on another machine
    if shared:
        shared.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="snakernel-by-hand-", dir=shared) as scratch:
        config_path = Path(scratch) / "config.yaml"
        write_text(config_path, config_yaml(config))
        code, folder = prepare_by_hand(config, config_path, arguments.definition, Path(scratch))
        out = arguments.out or Path(scratch) / "evaluation.json"
        if code := code or judge(config, config_path, folder, arguments.kernel, out):
            return code
        from snakernel.evaluation.verdict import Evaluation

        verdict = read_model(out, Evaluation)
        if arguments.against:
            code = compare(config, config_path, folder, arguments.kernel, verdict, arguments.against, Path(scratch))
        return code or (0 if verdict.correct else 1)


def judge(config: Config, config_path: Path, task_folder: Path, kernel: Path, out: Path) -> int:
    """Judge a kernel and print the table; returns an exit code, 0 whatever the verdict is."""
    from snakernel.evaluation.call import call_evaluator
    from snakernel.evaluation.verdict import Evaluation

    paths = {"config": config_path, "task_folder": task_folder, "kernel": kernel, "out": out}
    code = call_evaluator(config, "evaluate", {name: str(path) for name, path in paths.items()})
    if not code:
        print_table(read_model(out, Evaluation))
    return code


def compare(
    config: Config, config_path: Path, task_folder: Path, kernel: Path, judged: Evaluation, other: Path, scratch: Path
) -> int:
    """Judge another kernel too, time the two in turns and print which is faster; returns an exit code.

    Raises:
        UserError: the other file is missing, or one of the two is not correct.
    """
    from snakernel.evaluation.call import call_evaluator
    from snakernel.evaluation.verdict import Evaluation

    out = scratch / "compared.json"
    if not other.is_file():
        raise UserError(f"{other}: no such file")
    if code := judge(config, config_path, task_folder, other, scratch / "other.json"):
        return code
    for file, verdict in ((kernel, judged), (other, read_model(scratch / "other.json", Evaluation))):
        if not verdict.correct:
            raise UserError(f"{file}: is {verdict.status}: only correct kernels are timed against each other")
    paths = {"config": config_path, "task_folder": task_folder, "first": kernel, "second": other, "out": out}
    if code := call_evaluator(config, "compare", {name: str(path) for name, path in paths.items()}):
        return code
    told = json.loads(out.read_text())
    if "error" in told:
        raise UserError(f"{(kernel, other)[told['failed']]}: failed when it was timed: {told['error']}")
    faster = f"{kernel} is faster" if told["low"] > 1 else f"{other} is faster" if told["high"] < 1 else "no difference"
    print(
        f"latency of {other} / {kernel}: {told['ratio']:.4f}, 99 % interval {told['low']:.4f} to {told['high']:.4f} "
        f"({told['rounds']} rounds in turns): {faster}"
    )
    return 0


def prepare_by_hand(config: Config, config_path: Path, name: str, scratch: Path) -> tuple[int, Path]:
    """Make the folder of a task outside a run, with its reference measured; returns an exit code and the folder."""
    from snakernel.evaluation.call import call_evaluator

    files = sorted((config.dataset / "definitions").glob(f"*/{name}.json"))
    if not files:
        known = sorted(path.stem for path in (config.dataset / "definitions").glob("*/*.json"))
        raise UserError(f"{config.dataset}: no definition {name!r}; there are: {', '.join(known) or 'none'}")
    op_type = files[0].parent.name
    folder = scratch / f"{op_type}_{name}"
    checked = {"config": str(config_path), "op_type": op_type, "definition": name, "out": str(folder)}
    code = call_evaluator(config, "check_task", checked, on_device=False)
    measured = {"config": str(config_path), "task_folder": str(folder)}
    return code or call_evaluator(config, "measure_reference", measured), folder


def print_table(evaluation: Evaluation) -> None:
    """The verdict, a line a workload."""
    print(f"{evaluation.task_id}: {evaluation.status} on {evaluation.device.name} ({evaluation.timing})")
    if evaluation.error:
        print(evaluation.error)
    if evaluation.workloads:
        rows = [
            (
                "axes",
                "status",
                "ms",
                "95 % interval",
                "host ms",
                "reference ms",
                "speedup",
                "max abs err",
                "max rel err",
            )
        ]
        for one in evaluation.workloads:
            axes = " ".join(f"{axis}={value}" for axis, value in one.axes.items())
            latency = one.latency
            rows.append(
                (
                    axes,
                    one.status.value,
                    f"{latency.median_ms:.5f}" if latency else "",
                    f"{latency.low_ms:.5f} to {latency.high_ms:.5f}" if latency else "",
                    f"{latency.host_ms:.5f}" if latency and latency.host_ms else "",
                    f"{one.reference_ms:.5f}" if one.reference_ms else "",
                    f"{one.speedup:.3g}" if one.speedup else "",
                    f"{one.max_absolute_error:.3g}" if one.max_absolute_error is not None else "",
                    f"{one.max_relative_error:.3g}" if one.max_relative_error is not None else "",
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if evaluation.speedup is not None:
        print(
            f"speedup {evaluation.speedup:.3g} (geometric mean {evaluation.speedup_geomean:.3g}), "
            f"latency {evaluation.latency_ms:.5f} ms"
        )
    print("seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in evaluation.seconds.items()))


if __name__ == "__main__":
    run_main(main)
