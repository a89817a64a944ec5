"""Wall time of a verdict, side by side: flashinfer-bench at its defaults, at the agent baseline's settings, and ours.

    python benchmarks/verdict_time.py --dataset ROOT --kernels FOLDER [--backend local|cpu] [--repeats 3] [--rest 2]

FOLDER holds {definition}.py, the same kernel for all three; each is judged on all of its workloads. flashinfer-bench's
time is that of a new Benchmark, from its construction to its end, in a process that has imported it already, with an
empty Triton cache: a candidate is a new kernel. Ours is the whole command of a run's evaluation, from the start of
Python to its exit, with the run's worker and the warm parent running (what starts the latter is shown apart: the task's
check and its reference's measurement): once after some seconds' rest, as a run has while a model answers, and once with
one verdict after the other. It prints a table, and the figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from snakernel import warm, worker  # noqa: E402

FIB = {
    "default": {},
    "agent": {"warmup_runs": 3, "iterations": 5, "num_trials": 1, "timeout_seconds": 60},
}


def run_flashinfer_bench(dataset: Path, definition: str, kernel: Path, settings: str) -> dict[str, object]:
    """One Benchmark of one kernel; its own process, since it keeps workers and caches."""
    from flashinfer_bench.bench import Benchmark, BenchmarkConfig
    from flashinfer_bench.data import TraceSet
    from snakernel.evaluation.solution import read_solution

    with tempfile.TemporaryDirectory() as cache:
        os.environ["FIB_CACHE_PATH"] = os.environ["TRITON_CACHE_DIR"] = cache
        whole = TraceSet.from_path(str(dataset))
        solution = read_solution(kernel, whole.definitions[definition])
        traces = TraceSet(
            root=dataset,
            definitions={definition: whole.definitions[definition]},
            solutions={definition: [solution]},
            workloads={definition: whole.workloads[definition]},
        )
        begun = time.perf_counter()
        benchmark = Benchmark(traces, BenchmarkConfig(**FIB[settings]))
        found = benchmark.run_all(dump_traces=False).traces.get(definition, [])
        benchmark.close()
        seconds = time.perf_counter() - begun
    return {
        "seconds": seconds,
        "statuses": [trace.evaluation.status.value for trace in found],
        "latency_ms": [trace.evaluation.performance.latency_ms for trace in found if trace.evaluation.performance],
    }


def start_task(dataset: Path, definition: str, backend: str, scratch: Path) -> tuple[Path, Path]:
    """The configuration and the folder of a task in ``scratch``, made by a run's own commands, reference and all."""
    config = scratch / "config.yaml"
    keys = {"dataset_root": str(dataset.resolve()), "test_source": "benchmark", "eval_backend": backend}
    config.write_text(yaml.safe_dump(keys | {"save_path": str(scratch), "eval_timeout_s": 300.0}))
    op_type = next((dataset / "definitions").glob(f"*/{definition}.json")).parent.name
    folder = scratch / f"{op_type}_{definition}"
    run_command("check_task.py", config, "--op-type", op_type, "--definition", definition, "--out", str(folder))
    run_command("measure_reference.py", config, "--task-folder", str(folder))
    return config, folder


def run_command(script: str, config: Path, *arguments: str) -> None:
    """A command of a run, its output dropped."""
    command = [sys.executable, str(SCRIPTS / script), "--config", str(config), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def start_worker(config: Path) -> None:
    """Start the run's worker, as the job does that is before a run's first evaluation."""
    place = worker.parent_of(config, dict(os.environ), str(os.getpid()))
    request = {"script": "evaluate", "arguments": ["--help"], "config": str(config), "threads": {}}
    output = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        warm.call(place, request, start=("--idle-s", "600"))
    os.dup2(output, 1)


def run_ours(
    dataset: Path, definition: str, kernel: Path, backend: str, repeats: int, rest_s: float, scratch: Path
) -> dict[str, object]:
    """The commands of a run."""
    begun = time.perf_counter()
    config, folder = start_task(dataset, definition, backend, scratch)
    reference = time.perf_counter() - begun
    start_worker(config)
    out = scratch / "evaluation.json"
    arguments = ["--task-folder", str(folder), "--kernel", str(kernel), "--out", str(out)]
    seconds: dict[float, list[float]] = {0.0: [], rest_s: []}
    verdicts = []
    run_command("evaluate.py", config, *arguments)
    for rest in sorted(seconds):
        for _ in range(repeats):
            time.sleep(rest)
            begun = time.perf_counter()
            run_command("evaluate.py", config, *arguments)
            seconds[rest].append(time.perf_counter() - begun)
            verdicts.append(json.loads(out.read_text()))
    return {
        "seconds": statistics.median(seconds[rest_s]),
        "seconds_one_after_another": statistics.median(seconds[0.0]),
        "all_seconds": seconds,
        "latency_cv": latency_variation(verdicts),
        "latency_ms": [
            [one["latency"] and one["latency"]["median_ms"] for one in row["workloads"]] for row in verdicts
        ],
        "reference_seconds": reference,
        "parts": verdicts[-1]["seconds"],
        "statuses": [one["status"] for one in verdicts[-1]["workloads"]],
        "error": verdicts[-1]["error"],
        "device": verdicts[-1]["device"]["name"],
    }


def latency_variation(verdicts: list[dict]) -> list[float] | None:
    """Coefficient of variation of each workload's latency over the verdicts of one kernel."""
    rows = list(zip(*([one["latency"] for one in verdict["workloads"]] for verdict in verdicts), strict=True))
    if len(verdicts) < 2 or any(one is None for row in rows for one in row):
        return None
    return [
        statistics.stdev(one["median_ms"] for one in row) / statistics.mean(one["median_ms"] for one in row)
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--kernels", type=Path, required=True)
    parser.add_argument("--backend", choices=["local", "cpu"], default="local")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rest", type=float, default=2.0, help="seconds before each of our verdicts")
    parser.add_argument("--only-ours", action="store_true", help="leave flashinfer-bench out (it needs CUDA)")
    parser.add_argument("--fib", nargs=2, metavar=("DEFINITION", "SETTINGS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fib:
        definition, settings = arguments.fib
        kernel = arguments.kernels / f"{definition}.py"
        print(json.dumps(run_flashinfer_bench(arguments.dataset, definition, kernel, settings)))
        return
    os.environ[warm.RUN_PID] = str(os.getpid())  # what is started for this run goes with it
    rows = {}
    for kernel in sorted(arguments.kernels.glob("*.py")):
        definition = kernel.stem
        row: dict[str, object] = {}
        for settings in [] if arguments.only_ours else FIB:
            command = [
                sys.executable,
                __file__,
                "--dataset",
                str(arguments.dataset),
                "--kernels",
                str(arguments.kernels),
            ]
            done = subprocess.run([*command, "--fib", definition, settings], capture_output=True, text=True)
            row[settings] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else done.stderr[-300:]
        with tempfile.TemporaryDirectory() as scratch:
            row["ours"] = run_ours(
                arguments.dataset,
                definition,
                kernel,
                arguments.backend,
                arguments.repeats,
                arguments.rest,
                Path(scratch),
            )
        rows[definition] = row
        ours = row["ours"]
        variation = ours["latency_cv"]
        spread = f", latency varies by {statistics.median(variation):.2%}" if variation else ""
        told = [f"{definition} on {ours['device']}: ours {ours['seconds']:.2f} s {ours['parts']}{spread}"]
        told.append(f"one after another {ours['seconds_one_after_another']:.2f} s")
        for settings in FIB:
            other = row.get(settings)
            if isinstance(other, dict):
                same = "same verdicts" if other["statuses"] == ours["statuses"] else "OTHER VERDICTS"
                told.append(f"{settings} {other['seconds']:.2f} s ({other['seconds'] / ours['seconds']:.1f} x, {same})")
        print("; ".join(told), flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
