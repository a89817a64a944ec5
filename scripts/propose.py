"""Make a step's proposal: write its prompt, have a model answer it, once, and take the kernel out of the answer.

A step that needs not be asked gets files that say why. In a run a fork of scripts/worker.py does it, which has the
services' SDKs imported; `warm: false` does without. By hand, --only-prompt shows a prompt and asks nobody.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

from snakernel.errors import UserError, run_main
from snakernel.skipping import NotAsked, is_begun, skip_proposal, stop_reason


def main() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--task-folder", type=Path, required=True)
    parser.add_argument("--step", type=int, required=True)
    parser.add_argument(
        "--state", type=Path, nargs="?", help="best.json that the step starts from; default: as the search has it"
    )
    parser.add_argument("--only-prompt", action="store_true", help="print the prompt, and do nothing else")
    arguments = parser.parse_args()
    why = stop_reason(arguments.state)
    if why and not arguments.only_prompt and not is_begun(arguments.task_folder, arguments.step):
        return skip_proposal(arguments.task_folder / f"step_{arguments.step}", why)
    from snakernel.worker import run_in_worker  # here and below: a step that is skipped is not to wait for it

    if (code := run_in_worker(arguments.config)) is not None:
        return code
    from snakernel import proposal
    from snakernel.config import read_config

    what = (read_config(arguments.config), arguments.task_folder, arguments.step, arguments.state)
    if not arguments.only_prompt:
        return proposal.propose(*what)
    try:
        print(proposal.prompt(*what)[0], end="")
    except NotAsked as reason:
        raise UserError(f"this step needs not be asked: {reason}") from None


if __name__ == "__main__":
    gc.disable()  # a short process, in which an SDK makes many objects that stay: collecting would only look at them
    run_main(main)
