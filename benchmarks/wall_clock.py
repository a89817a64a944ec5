"""How close a run comes to what answers and verdicts alone would take.

    python benchmarks/wall_clock.py [--tasks 8] [--steps 25] [--answer-s 20] [--verdict-s 1] [--cores 8]
                                    [--config KEY=VALUE ...]

A real `snakemake` run of a copy of the project: the model is a server on 127.0.0.1 that answers after --answer-s, the
judge is a stand-in that holds one lock for --verdict-s (so no GPU is needed); all else is what runs use. References are
made before the clock starts, and it stops when summary.csv is there. The bounds are those of the answers (the critical
path of one task's) and of the verdicts (the sum of all). It prints the run's wall time and its ratio to the longer
one, and the CPU time of all its processes: on a machine with few cores, that is the bound.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests")]

from llm_server import LLMServer, Received, Reply  # noqa: E402
from snakernel.config import load_config  # noqa: E402
from snakernel.processes import adopt_orphans  # noqa: E402
from snakernel.search import create_strategy  # noqa: E402

PARTS = ("Snakefile", "rules", "scripts", "prompts", "config", "profiles", "environment.yml")
STAND_IN = '''"""A judge that takes its time and knows nothing."""

import hashlib
import time
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from snakernel import dataset
from snakernel.config import read_config
from snakernel.evaluation.verdict import (
    Device, Evaluation, Latency, Reference, ReferenceWorkload, Settings, Status, WorkloadResult,
)
from snakernel.files import read_text, write_model, write_text


def call_evaluator(config, action, arguments, *, on_device=True):
    common = {
        "device": Device(kind="cpu", name="a stand-in"), "versions": dict.fromkeys(("python", "torch", "triton"), "0"),
        "timing": "none", "settings": Settings.of(config),
    }
    latency = Latency(median_ms=1.0, low_ms=1.0, high_ms=1.0, calls=1)
    if action == "check_task":
        from snakernel.evaluation.actions import check_task

        return check_task(**arguments)
    folder = Path(arguments["task_folder"])
    if action == "measure_reference":
        rows = dataset.read_workloads(folder / "workloads.jsonl")
        workloads = [
            ReferenceWorkload(uuid=one.uuid, axes=one.axes, latency=latency, output_bytes=0, expected=[], stored=False)
            for one in rows
        ]
        (folder / "reference" / "expected").mkdir(parents=True, exist_ok=True)
        reference = Reference(task_id=folder.name, definition_sha256="", workloads=workloads, **common)
        write_model(folder / "reference" / "reference.json", reference)
        return 0
    started = datetime.now(UTC).isoformat()
    with FileLock(LOCK):
        time.sleep(VERDICT_S)
    sha = hashlib.sha256(read_text(arguments["kernel"]).encode()).hexdigest()
    speedup = 1 + int(sha[:4], 16) / 65536
    result = WorkloadResult(
        uuid="w", axes={"M": 1}, status=Status.PASSED, latency=latency, reference_ms=speedup, speedup=speedup,
        max_absolute_error=0.0, max_relative_error=0.0,
    )
    evaluation = Evaluation(
        task_id=folder.name, kernel_sha256=sha, status=Status.PASSED, compiled=True, correct=True, speedup=speedup,
        speedup_geomean=speedup, latency_ms=1.0, error="", stats={"PASSED": 1}, workloads=[result], seconds={},
        started=started, **common,
    )
    write_model(arguments["out"], evaluation)
    return 0
'''


def lay_out(folder: Path, tasks: int, verdict_s: float, keys: dict) -> None:
    """A copy of the project with a dataset of as many tasks and the stand-in for the judge."""
    for part in PARTS:
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / part)
    settings = f"LOCK = {str(folder / 'device.lock')!r}\nVERDICT_S = {verdict_s}\n"
    (folder / "scripts/snakernel/evaluation/call.py").write_text(STAND_IN + "\n\n" + settings)
    mini = REPOSITORY / "datasets" / "mini"
    definition = json.loads((mini / "definitions/rmsnorm/rmsnorm_h256.json").read_text())
    workloads = (mini / "workloads/rmsnorm/rmsnorm_h256.jsonl").read_text()
    for number in range(tasks):
        name = f"rmsnorm_{number}"
        for kind, suffix, text in (
            ("definitions", "json", json.dumps(definition | {"name": name})),
            ("workloads", "jsonl", workloads.replace("rmsnorm_h256", name)),
        ):
            path = folder / "dataset" / kind / "rmsnorm" / f"{name}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (folder / "tasks.txt").write_text("rmsnorm\n")
    (folder / "config.yaml").write_text(yaml.safe_dump(keys))


def bounds(keys: dict, tasks: int, answer_s: float, verdict_s: float) -> tuple[float, float]:
    """Seconds of the answers that must be awaited one after the other, and of all verdicts."""
    strategy = create_strategy(load_config(keys), "")
    ends = [0.0]
    for step in range(1, strategy.steps + 1):
        asked = 0.0 if strategy.sweeps(step) else answer_s
        ends.append(max(ends[-1], ends[strategy.reads(step)] + asked))
    return ends[-1], tasks * strategy.steps * verdict_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--answer-s", type=float, default=20.0)
    parser.add_argument("--verdict-s", type=float, default=1.0)
    parser.add_argument("--cores", type=int, default=8, help="jobs at once, those that wait for an answer not counted")
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="more keys of the configuration")
    arguments = parser.parse_args()

    answered = 0

    def answer(received: Received) -> Reply:
        nonlocal answered
        answered += 1
        text = f"```python\nimport torch\n\n\ndef run(hidden_states, weight):\n    return {answered}\n```\n"
        return Reply(text=text, delay_s=arguments.answer_s)

    with LLMServer(answer) as server, tempfile.TemporaryDirectory() as scratch:
        keys: dict[str, object] = {
            "test_source": "stand-in",
            "run": "timed",
            "dataset_root": "dataset",
            "tasks_path": "tasks.txt",
            "total_steps": arguments.steps,
            "api_type": "openai",
            "model_name": "gpt-5-mini",
            "eval_backend": "local",
            "confirm_draws": 0,
        }
        keys |= {key: yaml.safe_load(value) for key, value in (one.split("=", 1) for one in arguments.config)}
        folder = Path(scratch)
        lay_out(folder, arguments.tasks, arguments.verdict_s, keys)
        environment = {**os.environ, **server.environment()}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else each job compiles the copy's modules again
        command = [sys.executable, "-m", "snakemake", "--configfile", "config.yaml", "--cores", str(arguments.cores)]

        def run(*more: str) -> float:
            begun = time.perf_counter()
            with (folder / "output").open("w") as output:
                code = subprocess.call([*command, *more], cwd=folder, env=environment, stdout=output, stderr=output)
            if code:
                raise SystemExit((folder / "output").read_text()[-3000:])
            return time.perf_counter() - begun

        adopt_orphans()
        run("--until", "measure_reference")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = run("results/timed/summary.csv")
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()  # the run's worker, which goes by itself, counts too
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        load = os.getloadavg()[0]
        asked, together = answered, server.max_in_flight
    answers, verdicts = bounds(keys, arguments.tasks, arguments.answer_s, arguments.verdict_s)
    print(
        f"{arguments.tasks} tasks x {arguments.steps} steps, answers of {arguments.answer_s:g} s, verdicts of "
        f"{arguments.verdict_s:g} s, {arguments.cores} jobs at once on {os.cpu_count()} cores (load {load:.1f}): "
        f"{asked} answers, up to {together} awaited at once; {seconds:.0f} s, {cpu_s:.0f} CPU seconds; bounds: "
        f"answers {answers:.0f} s, verdicts {verdicts:.0f} s; {seconds / max(answers, verdicts):.2f} of the longer"
    )


if __name__ == "__main__":
    main()
