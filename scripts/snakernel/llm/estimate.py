"""What a run will cost, before it is paid: prompts x tokens x price."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from operator import mul
from pathlib import Path

from snakernel.config import Config
from snakernel.dataset import Task
from snakernel.llm.base import Request, Usage
from snakernel.llm.journal import answer_files, kept_answers
from snakernel.llm.prices import BYTES_PER_TOKEN, cost_usd, price_of
from snakernel.llm.providers import address_of, worst_usd_of
from snakernel.prompts import TEMPLATES
from snakernel.search import create_strategy

KERNEL_BYTES = 6_000
"""A kernel that a prompt shows, with its verdict, where there is no prompt of the task yet to measure."""


@dataclass(frozen=True)
class Estimate:
    """One task's steps that are not answered yet."""

    task: str
    steps: int
    """Questions that will be asked."""
    prompt_tokens: int
    """Tokens of one prompt."""
    measured: bool
    """By the task's own prompts; else by the size of what a prompt is made of."""
    most_usd: float | None
    """US dollars if every answer is as long as it may be; None where the price is not known."""
    like_usd: float | None
    """US dollars if answers are as long as this run's were so far; None where there is none."""


def estimate(config: Config, tasks: list[Task]) -> list[Estimate]:
    """Estimate what is left of a run, task by task."""
    answers = [answer for task in tasks for answer in kept_answers(config.results, task.name)]
    counts = [answer.usage.output_tokens for answer in answers if answer.usage.output_tokens]
    usual = round(statistics.fmean(counts)) if counts else None
    return [estimate_task(config, task, usual) for task in tasks]


def estimate_task(config: Config, task: Task, usual: int | None) -> Estimate:
    """Estimate one task; ``usual`` is the length of an answer so far, in tokens."""
    entries = {path.name for path in answer_files(config.results / "answers" / task.name)}
    strategy = create_strategy(config, task.name)
    asked = [step for step in range(1, strategy.steps + 1) if not strategy.sweeps(step)]
    steps = sum(f"{step}.json" not in entries for step in asked)
    sizes = [path.stat().st_size for path in (config.results / task.name).glob("step_*/prompt.md")]
    size = statistics.fmean(sizes) if sizes else _size_of_parts(config, task)
    if not config.asks_a_service:
        return Estimate(task.name, steps, round(size / BYTES_PER_TOKEN), bool(sizes), 0.0, 0.0)
    shares = config.model_shares
    most, like = [], []
    for service, model in map(config.served, shares):
        request = Request(prompt="x" * round(size), model=model, max_completion_tokens=config.max_completion_tokens)
        most.append(worst_usd_of(config, service, request))
        usage = Usage(input_tokens=round(size / BYTES_PER_TOKEN), output_tokens=usual or 0)
        price = price_of(config.prices_of(service), model)
        where = address_of(service, config.base_of(service))
        like.append(cost_usd(service, model, usage, api_base=where, price=price, batch=config.llm_mode == "batch"))
    mean = None if usual is None or None in like else sum(map(mul, like, shares.values())) / sum(shares.values())
    return Estimate(
        task=task.name,
        steps=steps,
        prompt_tokens=round(size / BYTES_PER_TOKEN),
        measured=bool(sizes),
        most_usd=None if None in most else max(most) * steps,
        like_usd=None if mean is None else mean * steps,
    )


def _size_of_parts(config: Config, task: Task) -> int:
    """Bytes of a prompt that shows as much as the search may show: the definition, the template, kernels."""
    shown = config.pool_size if config.agent_type == "evolve" else config.max_memory_round + 2
    parts = [task.definition_path(config.dataset), *(TEMPLATES / name for name in ("_task.md.j2", "tuner.md.j2"))]
    return sum(Path(part).stat().st_size for part in parts if Path(part).exists()) + shown * KERNEL_BYTES
