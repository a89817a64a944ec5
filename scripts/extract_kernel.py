"""Make a step's kernel out of its answer: the code block, or the edits applied to an earlier kernel."""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.config import read_config
from snakernel.errors import run_main
from snakernel.extraction import extract
from snakernel.files import write_model, write_text
from snakernel.history import step
from snakernel.search import create_strategy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--task-folder", type=Path, required=True)
    parser.add_argument("--step", type=int, required=True)
    arguments = parser.parse_args()
    strategy = create_strategy(read_config(arguments.config), arguments.task_folder.name)
    current = step(arguments.task_folder, arguments.step)
    before = strategy.reads(arguments.step)
    state = step(arguments.task_folder, before).state if before else strategy.start()
    base_code, base = None, None
    if strategy.role(arguments.step, state) == "tuner" and state.base is not None:
        base_code, base = step(arguments.task_folder, state.base).kernel, state.base
    code, extraction = extract(current.response.text, base_code, base, stop_reason=current.response.stop_reason)
    write_text(current.folder / "kernel.py", code)
    write_model(current.folder / "extraction.json", extraction)
    print(f"{extraction.kind}: {extraction.edits_applied} edits applied, {extraction.edits_skipped} skipped")
    for warning in extraction.warnings:
        print(f"warning: {warning}")


if __name__ == "__main__":
    run_main(main)
