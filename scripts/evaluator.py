"""The process that evaluates: one action, or, as the warm parent, a fork for each action that is asked for.

Other scripts start it by themselves, in an environment without keys; `warm: false` does without the warm parent.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from pathlib import Path

from snakernel.errors import run_main
from snakernel.evaluation.processes import die_with
from snakernel.evaluation.warm import Server


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
    parser.add_argument("--socket", type=Path, help="be the warm parent, at this socket")
    parser.add_argument("--token-sha256", help="hash of what callers must know")
    parser.add_argument("--idle-s", type=float, help="seconds without an action after which the parent goes")
    parser.add_argument("--run-pid", type=int, help="the process whose end is the end of the run")
    arguments = parser.parse_args()
    if arguments.caller is not None:
        die_with(arguments.caller)
    begun = time.perf_counter()
    # Importing starts no CUDA: a process that has may not fork.
    from snakernel.evaluation import actions
    from snakernel.evaluation.suspicion import suspicions

    if arguments.once is not None:
        actions.import_s = time.perf_counter() - begun
        return actions.ACTIONS[arguments.once["action"]](**arguments.once["arguments"])
    suspicions("")  # it compiles its patterns at first use
    if not os.environ.get("TRITON_INTERPRET"):
        from snakernel.evaluation.compiler import warm_up

        warm_up()
    if not forks_can_compute():
        print("error: this process has started CUDA, so its forks could not use it", file=sys.stderr)
        return 1
    gc.collect()
    gc.freeze()
    Server(arguments.socket, arguments.token_sha256, arguments.idle_s, arguments.run_pid).serve()
    return 0


if __name__ == "__main__":
    run_main(main)
