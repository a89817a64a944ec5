"""A step's kernel, made of its answer."""

from __future__ import annotations

from pathlib import Path

from snakernel.config import Config
from snakernel.evaluation.solution import kernel_sha256
from snakernel.extraction import extract, find_duplicate
from snakernel.files import write_model, write_text
from snakernel.history import step
from snakernel.search import create_strategy


def extract_kernel(config: Config, task_folder: Path, number: int) -> None:
    """Write kernel.py and extraction.json of a step that is answered, and say in the log what came of it.

    Args:
        config: the run's configuration.
        task_folder: the task's folder, with the step's response.json and the kernels that it may be made of.
        number: the step.
    """
    current = step(task_folder, number)
    question = current.response.request.question
    # Edits belong to the kernel that the model was shown, whatever the search would show it today.
    base = question.base
    base_code = step(task_folder, base).kernel if base is not None else None
    code, extraction = extract(current.response.text, base_code, base, stop_reason=current.response.stop_reason)
    if question.role == "sweep" and extraction.kind == "unchanged":
        extraction = extraction.model_copy(update={"duplicate_of": base})  # it had nothing to try
    elif config.reject_duplicates:
        known = create_strategy(config, task_folder.name).kernels_read(number)
        extraction = find_duplicate(extraction, number, [step(task_folder, one).extraction for one in known])
    write_text(current.folder / "kernel.py", code)
    extraction.kernel_sha256 = kernel_sha256(code)
    write_model(current.folder / "extraction.json", extraction)
    print(f"{extraction.kind}: {extraction.edits_applied} edits applied, {extraction.edits_skipped} skipped")
    if extraction.duplicate_of is not None:
        print(f"the same program as step {extraction.duplicate_of}'s")
    for warning in extraction.warnings:
        print(f"warning: {warning}")
