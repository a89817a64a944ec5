"""Say what a run will cost before it is started, or what is left of one. Nobody is asked."""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.config import read_config
from snakernel.dataset import read_tasks
from snakernel.errors import run_main
from snakernel.llm.estimate import estimate
from snakernel.llm.providers import price_to_set, without_price


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a configuration, or that of a run")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    rows = estimate(config, read_tasks(Path(config.tasks_path), config.dataset))
    width = max(len(row.task) for row in rows)
    print(f"{'task':{width}}  questions  tokens a prompt    at most, USD  as answers so far, USD")
    for row in rows:
        tokens = f"{row.prompt_tokens}{' ' if row.measured else '~'}"
        print(f"{row.task:{width}}  {row.steps:9}  {tokens:>15}  {usd(row.most_usd):>14}  {usd(row.like_usd):>22}")
    questions = sum(row.steps for row in rows)
    most = None if any(row.most_usd is None for row in rows) else sum(row.most_usd or 0.0 for row in rows)
    like = None if any(row.like_usd is None for row in rows) else sum(row.like_usd or 0.0 for row in rows)
    print(f"{'all':{width}}  {questions:9}  {'':>15}  {usd(most):>14}  {usd(like):>22}")
    print(
        f"At most: {', '.join(config.model_shares)} answers every question with {config.max_completion_tokens} tokens "
        "(max_completion_tokens), once. ~: no prompt of the task is written yet, so its length is a guess."
    )
    if most is None:
        names = without_price(config)
        print(f"The price of {' and '.join(names)} is not known: set {price_to_set(config, names)}.")
    if config.max_cost is not None:
        print(f"The run ends at max_cost {config.max_cost:g} USD.")


def usd(value: float | None) -> str:
    """A sum of money."""
    return "unknown" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    run_main(main)
