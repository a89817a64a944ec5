"""The same answers and verdicts give the same prompts and choices, in whatever order jobs end."""

from __future__ import annotations

import random
import sys
import zlib
from pathlib import Path

import propose
import pytest
import select_best
from snakernel.config import Config, config_yaml
from snakernel.evaluation.verdict import Evaluation
from snakernel.files import read_model, write_text
from snakernel.history import step
from snakernel.llm import asking
from snakernel.llm.base import Answer, Prompt, Provider, Request
from snakernel.llm.journal import Journal
from snakernel.search import State, create_strategy
from unit.test_prompts import CONFIG, TASK, add_step, folder

__all__ = ["folder"]


def job(script, *arguments: object) -> None:
    """Run a script's main here."""
    before, sys.argv = sys.argv, [script.__name__, *map(str, arguments)]
    try:
        script.main()
    finally:
        sys.argv = before


def answer_to(number: int, role: str) -> str:
    """What the model says to a step: new kernels, edits, copies of earlier ones and empty answers."""
    if number % 9 == 4:
        return "I cannot do this."
    block = [16, 32, 64, 16, 128][number % 5]
    plan = f"<bottleneck>step {number}</bottleneck>\n<idea>blocks of {block}</idea>\n"
    if role == "tuner" and number % 3:
        new = f"UNROLL = 1  # {number}\nPAD = {block}"
        return f"{plan}<old_str_1>\nUNROLL = 1\n</old_str_1>\n<new_str_1>\n{new}\n</new_str_1>\n"
    tunables = f'TUNABLES = {{"WARPS": [1, 2, 4]}}\nWARPS = 2\nBLOCK = {block}\nUNROLL = 1\n'
    return f"{plan}```python\n# step {number}\n{tunables}\n\ndef run(A, B):\n    return A\n```\n"


class Model:
    """A model that says to a step always the same; the optimiser answers for itself."""

    def __init__(self, number: int):
        self.number = number

    def ask(self, request: Request) -> Answer:
        return Answer(
            api_type="openai",
            request=request,
            text=answer_to(self.number, request.question.role),
            model=request.model,
            stop_reason="stop",
            cost_usd=0.01 if request.model == "small" else 0.05,
            started="2026-01-01T00:00:00+00:00",
            ended="2026-01-01T00:00:00+00:00",
        )


def play(config: Config, folder: Path, order: random.Random) -> dict[str, bytes]:
    """Run a whole task, each job as soon as the files are there that its rule names, next ones drawn at random."""
    settings = folder.parent / "config.yaml"
    write_text(settings, config_yaml(config))
    strategy = create_strategy(config, TASK)
    common = ("--config", settings, "--task-folder", folder)

    def path(number: int, name: str) -> Path:
        return folder / f"step_{number}" / name

    def make_the_proposal(number: int) -> None:
        read = strategy.reads(number)
        state = ("--state", path(read, "best.json")) if read else ()
        job(propose, *common, "--step", number, *state)

    def judge(number: int) -> None:
        one = step(folder, number)
        luck = zlib.crc32(one.kernel.encode())
        speedup = None if luck % 4 == 0 or one.extraction.duplicate_of else 1 + luck % 97 / 10
        extraction = one.extraction.model_dump()
        add_step(folder, number, speedup, one.kernel, "" if speedup else "wrong", **extraction)

    def select(number: int) -> None:
        state = ("--state", path(number - 1, "best.json")) if number > 1 else ()
        job(select_best, *common, "--step", number, *state)

    jobs = {}
    for number in range(1, strategy.steps + 1):
        jobs |= {
            (number, "propose"): (
                make_the_proposal,
                [(strategy.reads(number), "select"), *((one, "propose") for one in strategy.kernels_read(number))],
            ),
            (number, "judge"): (judge, [(number, "propose")]),
            (number, "select"): (select, [(number, "judge"), (number - 1, "select")]),
        }
    done = {(0, "select")}
    while len(done) <= len(jobs):
        ready = [name for name, (_, needed) in jobs.items() if name not in done and done.issuperset(needed)]
        chosen = order.choice(ready)
        jobs[chosen][0](chosen[0])
        done.add(chosen)
    names = ("prompt.md", "prompt.json", "kernel.py", "extraction.json", "best.json")
    return {
        f"{number}/{name}": path(number, name).read_bytes() for number in range(1, strategy.steps + 1) for name in names
    }


@pytest.mark.parametrize(
    "keys",
    [
        {"agent_type": "iterative", "parallel_proposals": 3, "total_steps": 9, "patience": 8},
        {"agent_type": "iterative", "islands": 2, "migrate_every": 2, "sweep_steps": 2, "total_steps": 6},
        {"agent_type": "evolve", "islands": 2, "migrate_every": 1, "parallel_proposals": 2, "refine_steps": 1}
        | {"sweep_steps": 1, "total_steps": 8, "pool_size": 3},
    ],
    ids=["parallel", "islands with sweeps", "all of it"],
)
def test_the_order_of_jobs_does_not_show(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict
) -> None:
    """A job that reads a file which its rule does not name fails here, sooner or later: it need not be there yet."""
    provider = asking.provider

    def answers(config: Config, journal: Journal, task: Path, prompt: Path) -> Provider:
        sweeps = read_model(prompt.with_suffix(".json"), Prompt).role == "sweep"
        return provider(config, journal, task, prompt) if sweeps else Model(journal.step)

    monkeypatch.setattr(asking, "provider", answers)
    beyond = {
        "planner": True,
        "reject_duplicates": True,
        "models": {"small": 1.0, "large": 1.0},
        "model_choice": "bandit",
    }
    config = CONFIG.model_copy(update=beyond | keys)
    runs = []
    for seed in range(2):
        copy = tmp_path / str(seed) / TASK
        for name in ("definition.json", "reference.py", "reference/reference.json"):
            write_text(copy / name, (folder / name).read_text())
        runs.append(play(config, copy, random.Random(seed)))
        last = read_model(copy / f"step_{create_strategy(config, TASK).steps}" / "best.json", State)
        verdicts = [read_model(path, Evaluation) for path in copy.glob("step_*/evaluation.json")]
        assert last.best.correct and last.ideas and len(last.models) == 2
        assert len({one.status for one in verdicts}) >= 2
    assert runs[0] == runs[1]
