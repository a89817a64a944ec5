"""Ask a model a step's question, once: the answer is in the journal, on disk, before anything looks at it.

A step that needs not be asked gets a response.json that says why. In a run a fork of scripts/worker.py asks, which has
the services' SDKs imported; `warm: false` does without.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

from snakernel.errors import run_main
from snakernel.files import read_json
from snakernel.skipping import is_begun, skip_answer


def main() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--task-folder", type=Path, required=True)
    parser.add_argument("--definition", required=True, help="name of the task's definition")
    parser.add_argument("--step", type=int, required=True)
    parser.add_argument("--prompt", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="response.json")
    arguments = parser.parse_args()
    question = read_json(arguments.prompt.with_suffix(".json"))
    if question.get("skip") and not is_begun(arguments.task_folder, arguments.step):
        return skip_answer(arguments.out, question["skip"])
    from snakernel.worker import run_in_worker  # here: a step that is skipped is not to wait for it

    if (code := run_in_worker(arguments.config)) is not None:
        return code
    from snakernel.llm.asking import ask_step  # here: what it imports takes most of a second

    return ask_step(**vars(arguments))


if __name__ == "__main__":
    gc.disable()  # a short process, in which an SDK makes many objects that stay: collecting would only look at them
    run_main(main)
