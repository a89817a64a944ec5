"""What planning a large run costs, and a call that finds one finished, beside a bare workflow of the same size.

    python benchmarks/planning.py [--tasks 40] [--steps 100] [--finished 1000] [--lessons] [--snakefile Snakefile ...]

In a temporary folder, over copies of a definition of datasets/mini: asks nobody and judges nothing. For each Snakefile,
those of other checkouts among them, and for a bare one (as many rules a step, each with one input, one output and a
shell command, and nothing else), prints one JSON object with the CPU seconds (user and system) and the peak memory of

plan: `snakemake -n --quiet all`, which plans the run and formats every job that it would run;
graph: `snakemake --rulegraph`, which plans the same jobs and formats none: what a run does before its first job;
finished: `snakemake -n` where the files of a run of ``--finished`` steps (tests/synthetic_run.py) are all there; the
bare one's are empty.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "scripts")]

STEP_RULES = ("propose", "evaluate", "select_best")
BARE_RULE = """
rule {name}:
    input: {input}
    output: "results/{{task}}/step_{{step}}/{name}.json"
    shell: "cp {{input}} {{output}}"
"""


def bare_snakefile(tasks: int, steps: int) -> str:
    """A workflow of as many jobs a step as ours, each with the least that a job can have."""
    before = f'lambda w: f"results/{{w.task}}/step_{{int(w.step) - 1}}/{STEP_RULES[-1]}.json" if w.step != "1" else []'
    # Snakemake plans a chain by recursion.
    text = "import sys\nsys.setrecursionlimit(1_000_000)\n"
    text += (
        f"rule all:\n    input: expand('results/{{task}}/step_{steps}/{STEP_RULES[-1]}.json', task=range({tasks}))\n"
    )
    for name in STEP_RULES:
        text += BARE_RULE.format(name=name, input=before)
        before = f'"results/{{task}}/step_{{step}}/{name}.json"'
    return text


def measure(folder: Path, snakefile: Path, *arguments: str) -> dict[str, float | int]:
    """CPU seconds and peak memory of one call of snakemake in ``folder``."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--cores", "2", *arguments]
    if (folder / "config.yaml").exists():
        command += ["--configfile", "config.yaml"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}:\n{text[-3000:]}")
    found: dict[str, float | int] = {
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6),
    }
    total = [line.split()[1] for line in text.splitlines() if line.startswith("total ")]
    if total:
        found["jobs"] = int(total[0])
    return found


def touch_in_order(dataset: Path, results: Path) -> None:
    """Give a run's files the times that a run would have given them: each step's after those of the step before."""
    now = 1_700_000_000
    for path in dataset.rglob("*.json*"):
        os.utime(path, (now, now))
    made = ["definition.json", "reference.py", "workloads.jsonl", "reference/reference.json", "reference/expected"]
    names = [
        "prompt.md",
        "prompt.json",
        "response.json",
        "kernel.py",
        "extraction.json",
        "evaluation.json",
        "best.json",
    ]
    for task in (path.parent for path in results.glob("*/definition.json")):
        steps = sorted(task.glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))
        files = [*made, *(f"{step.name}/{name}" for step in steps for name in names)]
        files += [f"best/{name}" for name in ("confirmation.json", "kernel.py", "evaluation.json", "solution.json")]
        for number, name in enumerate(files):
            os.utime(task / name, (now + number + 1, now + number + 1))


def finish_bare(folder: Path, tasks: int, steps: int) -> None:
    """The bare workflow with all of its files, each newer than what it is made of."""
    folder.mkdir()
    (folder / "Snakefile").write_text(bare_snakefile(tasks, steps))
    for task in range(tasks):
        for step in range(1, steps + 1):
            for number, name in enumerate(STEP_RULES):
                path = folder / "results" / str(task) / f"step_{step}" / f"{name}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("")
                when = 1_700_000_000 + step * len(STEP_RULES) + number
                os.utime(path, (when, when))


def main() -> None:
    from synthetic_run import make_dataset, make_run

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--finished", type=int, default=1000, help="steps of the finished run, 25 a task; 0: none")
    parser.add_argument("--lessons", action="store_true", help="plan with lessons_from_siblings")
    parser.add_argument("--snakefile", type=Path, nargs="+", default=[REPOSITORY / "Snakefile"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        planned, finished, bare = (Path(name) / part for part in ("planned", "finished", "bare"))
        names = [f"rmsnorm_test_{number}" for number in range(arguments.tasks)]
        make_dataset(planned / "datasets" / "synthetic", names, workloads=2)
        (planned / "tasks.txt").write_text(f"rmsnorm, {', '.join(names)}\n")
        keys = {
            "test_source": "synthetic",
            "tasks_path": "tasks.txt",
            "total_steps": arguments.steps,
            "api_type": "claude",
            "model_name": "test-model",
            "eval_backend": "cpu",
            "lessons_from_siblings": arguments.lessons,
        }
        (planned / "config.yaml").write_text(yaml.safe_dump(keys))
        bare.mkdir()
        (bare / "Snakefile").write_text(bare_snakefile(arguments.tasks, arguments.steps))
        if arguments.finished:
            finish_bare(Path(name) / "bare_finished", arguments.finished // 25, 25)
            config = make_run(finished, arguments.finished // 25, 25, workloads=2, eval_backend="cpu")
            touch_in_order(config.dataset, config.results)
            for file in ("report/index.html", "report/start.html", "ro-crate-metadata.json"):
                (config.results / file).parent.mkdir(exist_ok=True)
                (config.results / file).write_text("")
        snakefiles = [path.resolve() for path in arguments.snakefile]
        for snakefile in [bare / "Snakefile", *snakefiles]:
            folder = bare if snakefile.parent == bare else planned
            shutil.rmtree(folder / ".snakemake", ignore_errors=True)
            line: dict[str, object] = {"snakefile": "bare" if folder == bare else str(snakefile)}
            line["plan"] = measure(folder, snakefile, "-n", "--quiet", "all")
            line["graph"] = measure(folder, snakefile, "--rulegraph")
            if arguments.finished and folder == bare:
                line["finished"] = measure(Path(name) / "bare_finished", Path("Snakefile"), "-n", "--quiet", "all")
            elif arguments.finished:
                line["finished"] = measure(finished, snakefile, "-n", "--quiet", "all")
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
