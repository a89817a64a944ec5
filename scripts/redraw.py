"""Draw a step again: set its answer aside, so that the model is asked anew. The old answer stays in the journal."""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.errors import run_main
from snakernel.history import step_folder
from snakernel.llm.journal import Journal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task-folder", type=Path, required=True, help="results/RUN/TASK")
    parser.add_argument("--step", type=int, required=True)
    arguments = parser.parse_args()
    journal = Journal(arguments.task_folder.parent, arguments.task_folder.name, arguments.step)
    aside = journal.set_aside()
    # Without them, today's template makes the prompt, and the next run asks.
    folder = step_folder(arguments.task_folder, arguments.step)
    response = folder / "response.json"
    response.unlink(missing_ok=True)
    print(
        f"The answer is now {aside}.\n"
        f"Ask again with: snakemake --forcerun {response}\n"
        f"  with: --configfile {arguments.task_folder.parent}/config.yaml\n"
        "Later steps keep their answers, which were given to what this step was: edits among them are applied to the\n"
        "new kernel, and what does not fit is skipped, so their kernels, verdicts and best/ are made again. Copy\n"
        "best/ first if you want to keep it."
    )


if __name__ == "__main__":
    run_main(main)
