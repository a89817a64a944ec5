"""Asking a step's question, once: the answer is in the journal, on disk, before anything looks at it."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path

from snakernel.config import Config
from snakernel.files import read_json, read_model, read_text, write_model
from snakernel.history import step, step_folder
from snakernel.llm.base import Prompt, Provider, Request
from snakernel.llm.journal import Journal
from snakernel.skipping import NotAsked, skip_answer


def ask_step(config: Config, task_folder: Path, number: int) -> None:
    """Have a step answered, if it is not, and write its response.json; it may say why the step was not asked.

    Args:
        config: the run's configuration.
        task_folder: the task's folder, in which the step has its prompt.md and prompt.json.
        number: the step.
    """
    journal = Journal(task_folder.parent, task_folder.name, number)
    folder = step_folder(task_folder, number)
    prompt, out = folder / "prompt.md", folder / "response.json"
    try:
        answer, new = journal.answer(
            lambda: request(config, prompt),
            lambda: provider(config, journal, task_folder, prompt),
            more_room=0 if config.api_type == "replay" else config.more_room,
        )
    except NotAsked as reason:
        return skip_answer(out, str(reason))
    write_model(out, answer)
    cost = "price unknown" if answer.cost_usd is None else f"{answer.cost_usd:.4f} USD"
    print(
        f"{'asked' if new else 'kept answer of'} {answer.model}: {answer.usage.input_tokens} tokens in, "
        f"{answer.usage.output_tokens} out, {cost}, ended with {answer.stop_reason}"
    )
    for warning in answer.warnings:
        print(f"warning: {warning}")


def request(config: Config, prompt: Path) -> Request:
    """A step's question, to the model that it is for."""
    question = read_model(prompt.with_suffix(".json"), Prompt).question
    _, model = config.served(question.model or config.model_name)
    return Request(
        prompt=read_text(prompt),
        model=model,
        temperature=config.temperature,
        max_completion_tokens=config.max_completion_tokens,
        thinking=config.thinking,
        effort=config.reasoning_effort,
        question=question,
    )


def kernel_to_sweep(config: Config, task_folder: Path, prompt: Path) -> str:
    """The kernel that a trial puts other values into."""
    from snakernel.search.trials import given_kernel

    base = read_json(prompt.with_suffix(".json"))["base"]
    if base is not None:
        return step(task_folder, base).kernel
    if config.agent_type != "sweep":
        return ""
    return read_text(given_kernel(config, task_folder.name, definition_name(task_folder)))


def definition_name(task_folder: Path) -> str:
    """The name of a task's definition."""
    return read_json(task_folder / "definition.json")["name"]


def provider(config: Config, journal: Journal, task_folder: Path, prompt: Path) -> Provider:
    """Who answers a step."""
    question = read_json(prompt.with_suffix(".json"))
    replay = None
    if config.api_type == "replay":
        from snakernel.llm.replay import Replay

        replay = Replay(config.replay_path or "", task_folder.name, definition_name(task_folder), journal.step)
    if question["role"] == "sweep" and not (replay and replay.journal.is_file()):
        from snakernel.search.trials import Trials

        return Trials(kernel_to_sweep(config, task_folder, prompt))
    if replay:
        return replay
    from snakernel.llm.ledger import Ledger
    from snakernel.llm.limits import create_limits
    from snakernel.llm.providers import create_provider, worst_usd_of

    api_type, _ = config.served(question.get("model") or config.model_name)
    service = create_provider(
        api_type=api_type,
        api_base=config.base_of(api_type),
        memory=journal.answers / ".refused.json",
        price=config.prices_of(api_type),
        batch=config.llm_mode == "batch",
        poll_s=config.batch_poll_s,
    )
    service.gate = Ledger(
        journal,
        api_type,
        partial(worst_usd_of, config),
        max_cost=config.max_cost,
        max_cost_per_task=config.max_cost_per_task,
        limits=create_limits(config, service.base_url),
    )
    if service.batch:
        gc.enable()  # its process may wait for a day
    return service
