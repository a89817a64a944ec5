"""How far latencies can be trusted: their variation between evaluations of one kernel, and whether 3 % are seen.

    python benchmarks/latency_noise.py --dataset ROOT --kernels FOLDER [--evaluations 20] [--fib-evaluations 3]
    python benchmarks/latency_noise.py --dataset ROOT --gain rmsnorm_h4096 [--evaluations 20] [--percent 3 0]

The first judges each FOLDER/{definition}.py many times, each time in a process of its own, and prints the coefficient
of variation of each workload's latency, ours beside flashinfer-bench's (at its default settings); with 0 evaluations
of the one, only the other's. It ends with that of all kernels' workloads. The second times a kernel against one that
does the work of 3 % more rows, and against itself, in turns, on the largest workload, and counts how often the answer
is right.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from snakernel.config import read_config
from snakernel.evaluation.call import call_evaluator
from snakernel.evaluation.verdict import Evaluation
from snakernel.files import read_model

ROWS = """
import torch
import triton
import triton.language as tl


@triton.jit
def kernel(x, w, y, rows, H: tl.constexpr):
    row = tl.program_id(0) % rows
    at = tl.arange(0, H)
    v = tl.load(x + row * H + at).to(tl.float32)
    scale = tl.rsqrt(tl.sum(v * v, 0) / H + 1e-{epsilon})
    tl.store(y + row * H + at, (v * scale * tl.load(w + at).to(tl.float32)).to(tl.bfloat16))


def run(hidden_states, weight):
    rows, width = hidden_states.shape
    y = torch.empty_like(hidden_states)
    kernel[(rows + rows * {percent} // 100,)](hidden_states, weight, y, rows, H=width, num_warps=8)
    return y
"""


class Task:
    """A task's folder outside a run, with its reference measured."""

    def __init__(self, dataset: Path, definition: str, backend: str, scratch: Path, **keys: object):
        self.folder, self.out = scratch / definition, scratch / "out.json"
        self.path = scratch / "config.yaml"
        values = {"dataset_root": str(dataset.resolve()), "eval_backend": backend, "save_path": str(scratch)}
        self.path.write_text(yaml.safe_dump(values | {"eval_timeout_s": 300.0} | keys))
        self.config = read_config(self.path)
        op_type = next((dataset / "definitions").glob(f"*/{definition}.json")).parent.name
        self._call("check_task", op_type=op_type, definition=definition, out=str(self.folder))

    def measure_reference(self) -> None:
        """Measure it on the workloads of workloads.jsonl."""
        self._call("measure_reference", task_folder=str(self.folder))

    def judge(self, kernel: Path) -> Evaluation:
        """A kernel's verdict."""
        self._call("evaluate", task_folder=str(self.folder), kernel=str(kernel), out=str(self.out))
        return read_model(self.out, Evaluation)

    def compare(self, first: Path, second: Path) -> dict[str, float]:
        """Two kernels in turns."""
        files = {"first": str(first), "second": str(second)}
        self._call("compare", task_folder=str(self.folder), out=str(self.out), **files)
        return json.loads(self.out.read_text())

    def _call(self, action: str, **arguments: str) -> None:
        if call_evaluator(self.config, action, {"config": str(self.path), **arguments}):
            raise SystemExit(f"{action} failed")


def variation(rows: list[list[float]]) -> list[float]:
    """Coefficient of variation of each workload over the evaluations."""
    return [statistics.stdev(one) / statistics.mean(one) for one in zip(*rows, strict=True)]


def told(name: str, found: list[float], latencies: list[float]) -> str:
    """The variation in words."""
    long = [one for one, ms in zip(found, latencies, strict=True) if ms > 0.02]
    over = f"{statistics.median(long):.2%}, at most {max(long):.2%}" if long else "none"
    return f"{name}: median {statistics.median(found):.2%}, at most {max(found):.2%}; of those over 20 us {over}"


def noise(
    dataset: Path, kernel: Path, backend: str, evaluations: int, fib_evaluations: int
) -> dict[str, tuple[list[float], list[float]]]:
    """One definition's row; returns each evaluator's variations and latencies."""
    verdicts = []
    if evaluations:
        with tempfile.TemporaryDirectory() as scratch:
            task = Task(dataset, kernel.stem, backend, Path(scratch))
            task.measure_reference()
            verdicts = [task.judge(kernel) for _ in range(evaluations)]
    for one in verdicts:
        if not one.correct:
            print(f"{kernel.stem}: {one.status}: {one.error}")
            return {}
    ours = [[workload.latency.median_ms for workload in one.workloads] for one in verdicts]
    fib = [run_flashinfer_bench(dataset, kernel) for _ in range(fib_evaluations)]
    print(f"{kernel.stem}" + (f" on {verdicts[0].device.name}" if verdicts else ""))
    found = {}
    for name, rows in (("ours", ours), ("flashinfer-bench", fib)):
        if len(rows) > 1:
            found[name] = variation(rows), rows[0]
            print("  " + told(f"{name}, {len(rows)} evaluations, {len(rows[0])} workloads", *found[name]))
    sys.stdout.flush()
    return found


def run_flashinfer_bench(dataset: Path, kernel: Path) -> list[float]:
    """Latencies by flashinfer-bench, through benchmarks/verdict_time.py."""
    script = Path(__file__).with_name("verdict_time.py")
    command = [sys.executable, str(script), "--dataset", str(dataset), "--kernels", str(kernel.parent)]
    done = subprocess.run([*command, "--fib", kernel.stem, "default"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["latency_ms"]


def gain(dataset: Path, definition: str, backend: str, evaluations: int, percents: list[int]) -> None:
    """How often a gain is seen, and how often one that is not there."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        task = Task(dataset, definition, backend, scratch)
        path = task.folder / "workloads.jsonl"
        rows = path.read_text().splitlines()
        path.write_text(max(rows, key=lambda row: max(json.loads(row)["axes"].values())) + "\n")
        task.measure_reference()
        epsilon = 5 if "1e-5" in (task.folder / "reference.py").read_text().lower() else 6
        kernels = {}
        for percent in {0, *percents}:
            kernels[percent] = scratch / f"padded_{percent}.py"
            kernels[percent].write_text(ROWS.format(percent=percent, epsilon=epsilon))
            verdict = task.judge(kernels[percent])
            if not verdict.correct:
                raise SystemExit(f"the kernel is not correct: {verdict.error}")
        for percent in percents:
            found = [task.compare(kernels[0], kernels[percent]) for _ in range(evaluations)]
            right = [one["low"] > 1 if percent else one["low"] <= 1 <= one["high"] for one in found]
            ratios = [one["ratio"] for one in found]
            print(
                f"{definition}, largest workload, {percent} % more rows: right in {sum(right)} of "
                f"{evaluations}; ratio of latencies {min(ratios):.4f} to {max(ratios):.4f}, median "
                f"{statistics.median(ratios):.4f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--kernels", type=Path)
    parser.add_argument("--gain", metavar="DEFINITION", help="an rmsnorm")
    parser.add_argument("--percent", type=int, nargs="+", default=[3, 0], help="of more rows")
    parser.add_argument("--backend", choices=["local", "cpu"], default="local")
    parser.add_argument("--evaluations", type=int, default=20)
    parser.add_argument("--fib-evaluations", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.gain:
        gain(arguments.dataset, arguments.gain, arguments.backend, arguments.evaluations, arguments.percent)
    rows = [
        noise(arguments.dataset, kernel, arguments.backend, arguments.evaluations, arguments.fib_evaluations)
        for kernel in (sorted(arguments.kernels.glob("*.py")) if arguments.kernels else [])
    ]
    for name in ("ours", "flashinfer-bench"):
        found = [row[name] for row in rows if name in row]
        if len(found) > 1:
            variations, latencies = (list(itertools.chain(*one)) for one in zip(*found, strict=True))
            print(told(f"{name}, all {len(variations)} workloads of {len(found)} kernels", variations, latencies))


if __name__ == "__main__":
    main()
