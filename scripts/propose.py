"""Ask a model a step's question, once: the answer is in the journal, on disk, before anything looks at it."""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.config import Config, read_config
from snakernel.errors import run_main
from snakernel.files import read_model, read_text, write_model
from snakernel.llm.base import Provider, Question, Request
from snakernel.llm.journal import Journal
from snakernel.llm.replay import Replay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--task-folder", type=Path, required=True)
    parser.add_argument("--definition", required=True, help="name of the task's definition")
    parser.add_argument("--step", type=int, required=True)
    parser.add_argument("--prompt", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="response.json")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    journal = Journal(arguments.task_folder.parent, arguments.task_folder.name, arguments.step)
    answer, new = journal.answer(
        lambda: Request(
            prompt=read_text(arguments.prompt),
            model=config.model_name,
            temperature=config.temperature,
            max_completion_tokens=config.max_completion_tokens,
            question=read_model(arguments.prompt.with_suffix(".json"), Question),
        ),
        lambda: provider(config, arguments.task_folder.name, arguments.definition, arguments.step),
    )
    write_model(arguments.out, answer)
    cost = "price unknown" if answer.cost_usd is None else f"{answer.cost_usd:.4f} USD"
    print(
        f"{'asked' if new else 'kept answer of'} {answer.model}: {answer.usage.input_tokens} tokens in, "
        f"{answer.usage.output_tokens} out, {cost}, ended with {answer.stop_reason}"
    )
    for warning in answer.warnings:
        print(f"warning: {warning}")


def provider(config: Config, task: str, definition: str, step: int) -> Provider:
    """Who answers a step."""
    if config.api_type == "replay":
        return Replay(config.replay_path or "", task, definition, step)
    from snakernel.llm.providers import create_provider

    memory = config.results / "answers" / ".refused.json"
    return create_provider(api_type=config.api_type, api_base=config.api_base, memory=memory)


if __name__ == "__main__":
    run_main(main)
