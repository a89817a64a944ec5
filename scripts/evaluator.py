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
from pathlib import Path

from snakernel import warm_parent
from snakernel.errors import run_main
from snakernel.files import digest, scratch_folder
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
    from snakernel.evaluation.sandbox import remove_shared_memory
    from snakernel.evaluation.suspicion import suspicions

    if arguments.once is not None:
        actions.import_s = time.perf_counter() - begun
        try:
            with scratch_folder() as scratch, actions.afterwards:
                tempfile.tempdir = str(scratch)
                return actions.ACTIONS[arguments.once["action"]](**arguments.once["arguments"])
        finally:
            remove_shared_memory(os.getpid())
    import pynvml  # noqa: F401  (before the first fork)
    from snakernel.evaluation.devices import LOCK_FOLDER, versions

    suspicions("")  # it compiles its patterns at first use
    versions()
    if not os.environ.get("TRITON_INTERPRET"):
        from snakernel.evaluation.compiler import warm_up

        warm_up()
    if not forks_can_compute():
        print("error: this process has started CUDA, so its forks could not use it", file=sys.stderr)
        return 1
    os.environ.setdefault(LOCK_FOLDER, tempfile.gettempdir())  # forks have another
    ends = {"scratch": True, "adopts": True, "clean_up": remove_shared_memory, "afterwards": actions.afterwards.close}
    warm_parent.Server.of(arguments, carry_out, kind_of=kind_of, stand_by=stand_by, **ends).serve()
    return 0


def carry_out(request: warm_parent.Request) -> int | None:
    """In a fork: run the action that is asked for, on the device that the caller has."""
    from snakernel.evaluation.actions import ACTIONS

    if request["device"] is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = request["device"]
    return ACTIONS[request["action"]](**request["arguments"])


def kind_of(request: warm_parent.Request) -> str | None:
    """What a request has in common with those that a standby for it can carry out: all but the kernel and its verdict.

    Only kernels judged on a device have one: without CUDA there is too little to gain.
    """
    if request["action"] != "evaluate" or request["device"] is None:
        return None
    arguments = {name: value for name, value in request["arguments"].items() if name not in ("kernel", "out")}
    folder = Path(request["folder"], arguments["task_folder"])
    names = ("definition.json", "workloads.jsonl", "reference/reference.json")
    files = [Path(request["folder"], arguments["config"]), *(folder / name for name in names)]
    return json.dumps([request["device"], request["folder"], arguments, digest(*files)], sort_keys=True)


def stand_by(request: warm_parent.Request, wait: warm_parent.Wait) -> int | None:
    """In a fork: do what another request of the same kind needs too, then wait for one, and carry it out.

    The device is used meanwhile, so it is held as an evaluation holds it; where one does, nobody stands by.
    """
    from filelock import Timeout
    from snakernel.evaluation.actions import evaluate
    from snakernel.evaluation.devices import lock_of

    os.environ["CUDA_VISIBLE_DEVICES"] = request["device"]
    lock = lock_of(request["device"])
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"{request['device']}: another evaluation has it, so nobody stands by", file=sys.stderr)
        return 1
    return evaluate(**request["arguments"], next_request=lambda: wait(lock.release)["arguments"])


if __name__ == "__main__":
    run_main(main)
