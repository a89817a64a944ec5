"""Many verdicts through one warm parent: does anything grow?

    python benchmarks/verdict_growth.py [--verdicts 200] [--backend cpu|local] [--dataset datasets/mini]

Judges the baseline solution of rmsnorm_h256 and, in turns with it, kernels that crash, hang in a child and write files.
Prints the parent's memory, file descriptors, threads and children, and what lies in the folder for temporary files and
in /dev/shm, after the 20th verdict and after the last.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import psutil
from latency_noise import Task

ODD = [
    "def run(hidden_states, weight):\n    import ctypes\n    ctypes.string_at(0)\n",
    "def run(hidden_states, weight):\n    import os\n    os._exit(1)\n",
    "def run(hidden_states, weight):\n    import subprocess\n    subprocess.Popen(['sleep', '600'])\n    return 1\n",
    "def run(hidden_states, weight):\n    open('file', 'wb').write(bytes(10**7))\n    return hidden_states\n",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, default=Path(__file__).parents[1] / "datasets" / "mini")
    parser.add_argument("--backend", choices=["local", "cpu"], default="cpu")
    parser.add_argument("--verdicts", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        os.environ["TMPDIR"] = str(scratch / "tmp")
        (scratch / "tmp").mkdir()
        tempfile.tempdir = None
        small = {"iterations": 3, "warmup_runs": 1, "num_trials": 1, "max_workloads": 1, "timing_budget_s": 0.1}
        task = Task(arguments.dataset, "rmsnorm_h256", arguments.backend, scratch, **small)
        task.measure_reference()
        kernels = [next((arguments.dataset / "solutions" / "baseline").rglob("rmsnorm_h256*.json"))]
        for number, source in enumerate(ODD):
            kernels.append(scratch / f"odd_{number}.py")
            kernels[-1].write_text(source)
        (parent,) = {
            process.pid: process
            for process in psutil.process_iter(["cmdline", "ppid"])
            if any(str(scratch) in part for part in process.info["cmdline"] or []) and process.pid != os.getpid()
        }.values()
        statuses: dict[str, int] = {}
        for number in range(1, arguments.verdicts + 1):
            kernel = kernels[0] if number % 2 else kernels[1 + number // 2 % len(ODD)]
            status = task.judge(kernel).status.value
            statuses[status] = statuses.get(status, 0) + 1
            if number in (20, arguments.verdicts):
                # A fork answers before it ends, and until then some of the parent's memory counts as shared.
                psutil.wait_procs(parent.children(recursive=True), 10)
                memory = parent.memory_full_info()
                left = sorted(path.name for path in (scratch / "tmp").rglob("*"))
                print(
                    f"after {number} verdicts: parent {memory.uss / 1e6:.1f} MB of its own, {parent.num_fds()} "
                    f"descriptors, {parent.num_threads()} threads, {len(parent.children(recursive=True))} children; "
                    f"{len(left)} temporary files, {len(list(Path('/dev/shm').iterdir()))} in /dev/shm",
                    flush=True,
                )
        print(", ".join(f"{count} {status}" for status, count in sorted(statuses.items())))
        parent.kill()


if __name__ == "__main__":
    main()
