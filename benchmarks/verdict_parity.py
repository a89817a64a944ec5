"""The same verdicts? Each kernel judged by flashinfer-bench and by us on all of its workloads, as one table.

    python benchmarks/verdict_parity.py --dataset ROOT --kernels FOLDER [--only DEFINITION ...] [--prebuild]

FOLDER holds {definition}/*.py, or the Solution files of a dataset (*.json). flashinfer-bench judges at the agent
baseline's settings, each kernel in a Benchmark and a process of its own, since one that faults the device takes the
verdicts after it along; ours is the command of a run. A row where the two differ is marked. `--prebuild` first runs
each *.py that nvcc builds (tests/replays.py) with PREBUILD=1, eight at a time. Needs a CUDA device.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from verdict_time import SCRIPTS, run_flashinfer_bench, start_task


def told(statuses: list[str]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(Counter(statuses).items())) or "no verdict"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--kernels", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="these definitions only")
    parser.add_argument("--prebuild", action="store_true")
    parser.add_argument("--fib", nargs=2, metavar=("DEFINITION", "KERNEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fib:
        definition, kernel = arguments.fib
        print(json.dumps(run_flashinfer_bench(arguments.dataset, definition, Path(kernel), "agent")["statuses"]))
        return
    folders = [
        path for path in sorted(arguments.kernels.iterdir()) if not arguments.only or path.name in arguments.only
    ]
    if arguments.prebuild:
        with ThreadPoolExecutor(8) as pool:
            files = [
                path for folder in folders for path in sorted(folder.glob("*.py")) if "PREBUILD" in path.read_text()
            ]
            environment = os.environ | {"PREBUILD": "1"}
            list(
                pool.map(
                    lambda path: subprocess.run([sys.executable, str(path)], env=environment, capture_output=True),
                    files,
                )
            )
    same = 0
    rows = 0
    for folder in folders:
        with tempfile.TemporaryDirectory() as scratch:
            config, task = start_task(arguments.dataset, folder.name, "local", Path(scratch))
            for kernel in sorted(folder.iterdir()):
                command = [sys.executable, __file__, "--dataset", str(arguments.dataset), "--kernels", str(folder)]
                done = subprocess.run([*command, "--fib", folder.name, str(kernel)], capture_output=True, text=True)
                if done.returncode:
                    print(f"{folder.name} {kernel.stem}: flashinfer-bench failed: {done.stderr[-300:]}", flush=True)
                    continue
                out = Path(scratch) / "evaluation.json"
                out.unlink(missing_ok=True)
                run = [
                    sys.executable,
                    str(SCRIPTS / "evaluate.py"),
                    "--config",
                    str(config),
                    "--task-folder",
                    str(task),
                ]
                judged = subprocess.run(
                    [*run, "--kernel", str(kernel), "--out", str(out)], capture_output=True, text=True
                )
                if judged.returncode:
                    print(f"{folder.name} {kernel.stem}: no verdict of ours: {judged.stderr[-300:]}", flush=True)
                    continue
                verdict = json.loads(out.read_text())
                expected = json.loads(done.stdout.splitlines()[-1])
                ours = [one["status"] for one in verdict["workloads"]]
                passed = bool(expected) and set(expected) == {"PASSED"}
                agree = passed == verdict["correct"]
                rows += 1
                same += agree
                print(
                    f"{folder.name} {kernel.stem}: flashinfer-bench {told(expected)}; ours {verdict['status']} "
                    f"({told(ours)}){'' if agree else ' DIFFERS: ' + (verdict['error'] or '')[:300]}",
                    flush=True,
                )
    print(f"{same} of {rows} kernels pass, or fail, with both")


if __name__ == "__main__":
    main()
