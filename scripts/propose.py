"""Ask a model a step's question, once: the answer is in the journal, on disk, before anything looks at it.

A step that needs not be asked gets a response.json that says why. In a run a fork of scripts/asker.py asks, which has
the service's SDK imported; `warm: false` does without.
"""

from __future__ import annotations

import argparse
import gc
import os
from pathlib import Path

from snakernel.errors import run_main
from snakernel.files import read_json
from snakernel.skipping import is_answered, is_begun, skip_answer

ASKER = Path(__file__).with_name("asker.py")


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
    if question.get("role") != "sweep" and not is_answered(arguments.task_folder, arguments.step):
        code = ask_warm(arguments)
        if code is not None:
            return code
    from snakernel.llm.asking import ask_step  # here: what it imports takes most of a second

    return ask_step(**vars(arguments))


def ask_warm(arguments: argparse.Namespace) -> int | None:
    """Have a fork of the asker ask; None where there is none, and is to be none."""
    from snakernel import warm  # here: a step that is skipped is not to wait for it

    run = os.environ.get(warm.RUN_PID)
    if run is None:  # by hand: nothing is to stay behind that has the keys
        return None
    # The next run has an asker of its own: this one's goes with it.
    parent = warm.parent_of(ASKER, os.environ, (run, str(arguments.config.resolve())))
    if parent is None:
        return None
    request = {"arguments": {name: value if name == "step" else str(value) for name, value in vars(arguments).items()}}
    code = warm.call(parent, request)
    if code is None:
        from snakernel.config import read_config

        config = read_config(arguments.config)
        if config.warm and config.asks_a_service:
            start = ("--api-type", config.api_type, "--idle-s", str(config.warm_idle_s))
            code = warm.call(parent, request, start=start)
    return code


if __name__ == "__main__":
    gc.disable()  # a short process, in which an SDK makes many objects that stay: collecting would only look at them
    run_main(main)
