"""Ask a model a step's question, once: the answer is in the journal, on disk, before anything looks at it.

A step that needs not be asked gets a response.json that says why.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from typing import TYPE_CHECKING

from snakernel.errors import run_main
from snakernel.files import read_json, read_model, read_text, write_model
from snakernel.skipping import NotAsked, is_begun, skip_answer

if TYPE_CHECKING:
    from snakernel.config import Config
    from snakernel.llm.base import Provider, Request
    from snakernel.llm.journal import Journal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--task-folder", type=Path, required=True)
    parser.add_argument("--definition", required=True, help="name of the task's definition")
    parser.add_argument("--step", type=int, required=True)
    parser.add_argument("--prompt", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="response.json")
    arguments = parser.parse_args()
    task = arguments.task_folder.name
    why = read_json(arguments.prompt.with_suffix(".json")).get("skip")
    if why and not is_begun(arguments.task_folder, arguments.step):
        return not_asked(arguments.out, why)
    from snakernel.config import read_config  # here and below: a step that is skipped is not to wait for it
    from snakernel.llm.journal import Journal

    config = read_config(arguments.config)
    journal = Journal(arguments.task_folder.parent, task, arguments.step)
    if why and journal.asked() is None:
        return not_asked(arguments.out, why)
    try:
        answer, new = journal.answer(
            lambda: request(config, arguments.prompt),
            lambda: provider(config, journal, arguments.task_folder, arguments.definition, arguments.prompt),
            more_room=0 if config.api_type == "replay" else config.more_room,
        )
    except NotAsked as reason:
        return not_asked(arguments.out, str(reason))
    write_model(arguments.out, answer)
    cost = "price unknown" if answer.cost_usd is None else f"{answer.cost_usd:.4f} USD"
    print(
        f"{'asked' if new else 'kept answer of'} {answer.model}: {answer.usage.input_tokens} tokens in, "
        f"{answer.usage.output_tokens} out, {cost}, ended with {answer.stop_reason}"
    )
    for warning in answer.warnings:
        print(f"warning: {warning}")


def request(config: Config, prompt: Path) -> Request:
    """A step's question, to the model that it is for."""
    from snakernel.llm.base import Prompt, Request

    question = read_model(prompt.with_suffix(".json"), Prompt).question
    return Request(
        prompt=read_text(prompt),
        model=question.model or config.model_name,
        temperature=config.temperature,
        max_completion_tokens=config.max_completion_tokens,
        thinking=config.thinking,
        effort=config.reasoning_effort,
        question=question,
    )


def kernel_to_sweep(config: Config, task_folder: Path, definition: str, prompt: Path) -> str:
    """The kernel that a trial puts other values into."""
    from snakernel.history import step
    from snakernel.search.trials import given_kernel

    base = read_json(prompt.with_suffix(".json"))["base"]
    if base is not None:
        return step(task_folder, base).kernel
    return read_text(given_kernel(config, task_folder.name, definition)) if config.agent_type == "sweep" else ""


def not_asked(out: Path, why: str) -> None:
    """Write a response.json that says why there is no answer."""
    skip_answer(out, why)
    print(f"not asked: {why}")


def provider(config: Config, journal: Journal, task_folder: Path, definition: str, prompt: Path) -> Provider:
    """Who answers a step."""
    replay = None
    if config.api_type == "replay":
        from snakernel.llm.replay import Replay

        replay = Replay(config.replay_path or "", task_folder.name, definition, journal.step)
    if read_json(prompt.with_suffix(".json"))["role"] == "sweep" and not (replay and replay.journal.is_file()):
        from snakernel.search.trials import Trials

        return Trials(kernel_to_sweep(config, task_folder, definition, prompt))
    if replay:
        return replay
    from snakernel.llm.ledger import Ledger
    from snakernel.llm.limits import create_limits
    from snakernel.llm.providers import create_provider

    service = create_provider(
        api_type=config.api_type,
        api_base=config.api_base,
        memory=journal.answers / ".refused.json",
        price=config.price,
        batch=config.llm_mode == "batch",
        poll_s=config.batch_poll_s,
    )
    service.gate = Ledger(
        journal,
        service.worst_usd,
        max_cost=config.max_cost,
        max_cost_per_task=config.max_cost_per_task,
        limits=create_limits(config, service.base_url),
    )
    if service.batch:
        gc.enable()  # its process may wait for a day
    return service


if __name__ == "__main__":
    gc.disable()  # a short process, in which an SDK makes many objects that stay: collecting would only look at them
    run_main(main)
