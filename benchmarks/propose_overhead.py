"""What a proposal costs beside the request itself: wall and CPU seconds, side by side, with a server on loopback.

    python benchmarks/propose_overhead.py [--repeat 7]

warm      scripts/propose.py as the workflow runs it: a fork of the worker asks, journal and ledger included
cold      the same where there is no worker (`warm: false`): the job's own process imports the SDK and asks
bare SDK  a process that imports the SDK, asks the same question and prints the answer: what any client needs
many      one process that asks question after question: what a job would save that asked for many
skipped   scripts/propose.py for a step that needs not be asked

The server answers at once; its share of the first two, from the request to the end of the answer, is told beside. CPU
seconds do not depend on what else the machine does; those of a fork of the worker are the worker's, and told apart, as
is the first warm job of a run, which starts the worker.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

import propose as propose_script  # noqa: E402
import psutil  # noqa: E402
from llm_server import LLMServer, Reply  # noqa: E402
from snakernel.config import config_yaml, load_config  # noqa: E402
from snakernel.files import read_model, write_text  # noqa: E402
from snakernel.llm.base import Answer  # noqa: E402
from snakernel.warm import RUN_PID  # noqa: E402
from snakernel.worker import parent_of  # noqa: E402

MODELS = {"claude": "claude-opus-5-5", "openai": "gpt-6-sol", "gemini": "gemini-3.5-flash"}
PROMPT = "Write a kernel.\n" * 500
BARE = {
    "claude": """
import anthropic, sys
with anthropic.Anthropic().messages.stream(model=sys.argv[1], max_tokens=1000,
        messages=[{"role": "user", "content": sys.stdin.read()}]) as stream:
    print(stream.get_final_message().content[0].text)
""",
    "openai": """
import openai, sys
for event in openai.OpenAI().responses.create(model=sys.argv[1], max_output_tokens=1000, stream=True,
        input=sys.stdin.read()):
    if event.type == "response.completed":
        print(event.response.output_text)
""",
    "gemini": """
import openai, os, sys
client = openai.OpenAI(base_url=os.environ["GEMINI_BASE_URL"], api_key=os.environ["GEMINI_API_KEY"])
for chunk in client.chat.completions.create(model=sys.argv[1], max_completion_tokens=1000, stream=True,
        messages=[{"role": "user", "content": sys.stdin.read()}]):
    print(chunk.choices[0].delta.content if chunk.choices else "")
""",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7, help="processes of each kind; the median is told")
    arguments = parser.parse_args()
    with LLMServer(Reply(text="def run(): pass\n" * 200)) as server, tempfile.TemporaryDirectory() as scratch:
        os.environ.update(server.environment())
        os.environ[RUN_PID] = str(os.getpid())
        heads = "  ".join(f"{name:>13}" for name in ("warm", "cold", "bare SDK", "many", "skipped"))
        print(f"{'':8}  {heads}   outside the request: warm, cold, the first warm one; worker's CPU a question")
        for api_type in MODELS:
            row(api_type, Path(scratch) / api_type, arguments.repeat)


def row(api_type: str, folder: Path, repeat: int) -> None:
    """Measure one service."""
    values = {"api_type": api_type, "model_name": MODELS[api_type], "temperature": None, "max_completion_tokens": 1000}
    config = load_config({**values, "save_path": str(folder), "run": "run", "max_cost": 1000.0})
    config_path, task = folder / "config.yaml", config.results / "op_definition"
    write_text(config_path, config_yaml(config))
    without = folder / "cold.yaml"
    write_text(without, config_yaml(config.model_copy(update={"warm": False})))
    kinds: dict[str, list[Seconds]] = {name: [] for name in ("warm", "cold", "bare", "skipped")}
    outside: dict[str, list[float]] = {"warm": [], "cold": []}
    worker = 0.0
    for step in range(1, repeat + 2):
        for kind, path, number in (("warm", config_path, step), ("cold", without, 500 + step)):
            kinds[kind].append(propose(path, task, number, {}))
            outside[kind].append(kinds[kind][-1].wall - seconds_of(read_model(task / f"{number}.json", Answer)))
        if step == 1:
            worker = cpu_of_worker(config_path)
        kinds["skipped"].append(propose(config_path, task, 1000 + step, {"skip": "enough"}))
        kinds["bare"].append(run([sys.executable, "-c", BARE[api_type], MODELS[api_type]], PROMPT))
    worker = (cpu_of_worker(config_path) - worker) / repeat
    # The first of each reads its files from the disk, and starts the worker.
    medians = {name: median(times[1:]) for name, times in kinds.items()}
    columns = (medians["warm"], medians["cold"], medians["bare"], ask_many(without, task, repeat), medians["skipped"])
    cells = "  ".join(f"{one.wall:6.2f} {one.cpu:6.2f}" for one in columns)
    told = ", ".join(f"{statistics.median(outside[kind][1:]):.2f}" for kind in ("warm", "cold"))
    print(f"{api_type:8}  {cells}   {told}, {outside['warm'][0]:.2f}; {worker:.2f}", flush=True)


def cpu_of_worker(config: Path) -> float:
    """CPU seconds that the worker and its forks have used."""
    parent = parent_of(config, dict(os.environ), str(os.getpid()))
    (process,) = (one for one in psutil.process_iter(["cmdline"]) if str(parent.socket) in (one.info["cmdline"] or []))
    return sum(process.cpu_times()[:4])


class Seconds(NamedTuple):
    """How long something took."""

    wall: float
    cpu: float


def median(times: list[Seconds]) -> Seconds:
    """The median of each."""
    return Seconds(*map(statistics.median, zip(*times, strict=True)))


def command_of(config: Path, task: Path, step: int, question: dict[str, str]) -> list[str]:
    """The command of one proposal job, whose prompt is written."""
    prompt = task / f"step_{step}" / "prompt.md"
    write_text(prompt, PROMPT)
    write_text(prompt.with_suffix(".json"), json.dumps({"role": "proposer"} | question))
    command = [ROOT / "scripts" / "propose.py", "--config", config, "--task-folder", task, "--definition", "name"]
    return [*map(str, command), "--step", str(step), "--prompt", str(prompt), "--out", str(task / f"{step}.json")]


def propose(config: Path, task: Path, step: int, question: dict[str, str]) -> Seconds:
    """Time one proposal job."""
    return run([sys.executable, *command_of(config, task, step, question)])


def ask_many(config: Path, task: Path, repeat: int) -> Seconds:
    """Time one question more in a process that asks one after the other: this one."""
    times = []
    for step in range(2000, 2001 + repeat):
        sys.argv = command_of(config, task, step, {})
        begun, cpu = time.perf_counter(), time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            propose_script.main()
        times.append(Seconds(time.perf_counter() - begun, time.process_time() - cpu))
    return median(times[1:])


def run(command: list[str], text: str = "") -> Seconds:
    """Time a process."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.DEVNULL)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - begun
    return Seconds(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def seconds_of(answer: Answer) -> float:
    """Wall seconds from the request to the end of its answer."""
    return (datetime.fromisoformat(answer.ended) - datetime.fromisoformat(answer.started)).total_seconds()


if __name__ == "__main__":
    main()
