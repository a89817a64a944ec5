"""The process that evaluates: one action, or, as the warm parent, a fork for each action that is asked for.

Other scripts start it by themselves, in an environment without keys; `warm: false` does without the warm parent.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from typing import Any

from snakernel import warm_parent
from snakernel.errors import run_main
from snakernel.files import scratch_folder
from snakernel.processes import die_with


def forks_can_compute() -> bool:
    """Whether a fork of this process can use CUDA, or needs none: tried, since some import may have started it."""
    if os.environ.get("TRITON_INTERPRET"):
        return True
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            import torch

            torch.zeros(1, device="cuda")
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", type=json.loads, help="run this action and exit: a JSON object")
    parser.add_argument("--caller", type=int, help="with --once: the process that waits for it")
    warm_parent.add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.caller is not None:
        die_with(arguments.caller)
    begun = time.perf_counter()
    # Importing starts no CUDA: a process that has may not fork.
    from snakernel.evaluation import actions
    from snakernel.evaluation.suspicion import suspicions

    if arguments.once is not None:
        actions.import_s = time.perf_counter() - begun
        with scratch_folder() as scratch:
            tempfile.tempdir = str(scratch)
            return actions.ACTIONS[arguments.once["action"]](**arguments.once["arguments"])
    from snakernel.evaluation.sandbox import remove_shared_memory

    suspicions("")  # it compiles its patterns at first use
    if not os.environ.get("TRITON_INTERPRET"):
        from snakernel.evaluation.compiler import warm_up

        warm_up()
    if not forks_can_compute():
        print("error: this process has started CUDA, so its forks could not use it", file=sys.stderr)
        return 1
    warm_parent.Server.of(arguments, carry_out, scratch=True, adopts=True, clean_up=remove_shared_memory).serve()
    return 0


def carry_out(request: dict[str, Any]) -> int | None:
    """In a fork: run the action that is asked for, on the device that the caller has."""
    from snakernel.evaluation.actions import ACTIONS

    if request["device"] is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = request["device"]
    return ACTIONS[request["action"]](**request["arguments"])


if __name__ == "__main__":
    run_main(main)
