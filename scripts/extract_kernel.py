"""Make a step's kernel out of its answer: the code block, or the edits applied to an earlier kernel."""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.errors import run_main
from snakernel.files import write_model, write_text
from snakernel.skipping import skip_kernel, skip_reason


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task-folder", type=Path, required=True)
    parser.add_argument("--step", type=int, required=True)
    arguments = parser.parse_args()
    folder = arguments.task_folder / f"step_{arguments.step}"
    if why := skip_reason(folder):
        return skip_kernel(folder, why)
    from snakernel.extraction import extract  # here and below: a step that is skipped is not to wait for it
    from snakernel.history import step

    current = step(arguments.task_folder, arguments.step)
    # Edits belong to the kernel that the model was shown, whatever the search would show it today.
    base = current.response.request.question.base
    base_code = step(arguments.task_folder, base).kernel if base is not None else None
    code, extraction = extract(current.response.text, base_code, base, stop_reason=current.response.stop_reason)
    write_text(current.folder / "kernel.py", code)
    write_model(current.folder / "extraction.json", extraction)
    print(f"{extraction.kind}: {extraction.edits_applied} edits applied, {extraction.edits_skipped} skipped")
    for warning in extraction.warnings:
        print(f"warning: {warning}")


if __name__ == "__main__":
    run_main(main)
