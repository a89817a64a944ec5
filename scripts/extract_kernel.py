"""Make a step's kernel out of its answer: the code block, or the edits applied to an earlier kernel."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from snakernel.errors import run_main
from snakernel.files import write_model, write_text
from snakernel.skipping import skip_kernel, skip_reason

if TYPE_CHECKING:
    from snakernel.extraction import Extraction


def main() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--task-folder", type=Path, required=True)
    parser.add_argument("--step", type=int, required=True)
    arguments = parser.parse_args()
    folder = arguments.task_folder / f"step_{arguments.step}"
    if why := skip_reason(folder):
        return skip_kernel(folder, why)
    from snakernel.worker import run_in_worker  # here and below: a step that is skipped is not to wait for it

    if (code := run_in_worker(arguments.config)) is not None:
        return code
    from snakernel.config import read_config
    from snakernel.evaluation.solution import kernel_sha256
    from snakernel.extraction import extract
    from snakernel.history import step
    from snakernel.search import create_strategy

    config = read_config(arguments.config)
    current = step(arguments.task_folder, arguments.step)
    # Edits belong to the kernel that the model was shown, whatever the search would show it today.
    base = current.response.request.question.base
    base_code = step(arguments.task_folder, base).kernel if base is not None else None
    code, extraction = extract(current.response.text, base_code, base, stop_reason=current.response.stop_reason)
    if current.response.request.question.role == "sweep" and extraction.kind == "unchanged":
        extraction = extraction.model_copy(update={"duplicate_of": base})  # it had nothing to try
    elif config.reject_duplicates:
        known = create_strategy(config, arguments.task_folder.name).kernels_read(arguments.step)
        before = [step(arguments.task_folder, one).extraction for one in known]
        extraction = find_duplicate(extraction, arguments.step, before)
    write_text(current.folder / "kernel.py", code)
    extraction.kernel_sha256 = kernel_sha256(code)
    write_model(current.folder / "extraction.json", extraction)
    print(f"{extraction.kind}: {extraction.edits_applied} edits applied, {extraction.edits_skipped} skipped")
    if extraction.duplicate_of is not None:
        print(f"the same program as step {extraction.duplicate_of}'s")
    for warning in extraction.warnings:
        print(f"warning: {warning}")


def find_duplicate(extraction: Extraction, number: int, before: list[Extraction]) -> Extraction:
    """Look for a step's program among those of the steps before it, each of which knows those before itself."""
    programs: dict[str, int] = {}
    for one in before:
        for program, first in one.programs.items():
            programs[program] = min(first, programs.get(program, first))
    if extraction.fingerprint is None:
        return extraction.model_copy(update={"programs": programs})
    same = programs.get(extraction.fingerprint)
    return extraction.model_copy(update={"programs": {extraction.fingerprint: number} | programs, "duplicate_of": same})


if __name__ == "__main__":
    run_main(main)
