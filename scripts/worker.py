"""The process that carries out a run's light jobs: the warm parent of the scripts that snakernel/worker.py names.

It has imported what takes these jobs most of their time, the services' SDKs too once one is asked, and has the keys. A
fork of it runs each job's script; the scripts start it by themselves. It goes with its run, and candidate kernels are
no descendants of it.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from snakernel import warm_parent, worker
from snakernel.errors import run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    warm_parent.add_arguments(parser)
    arguments = parser.parse_args()
    for script in worker.SCRIPTS:
        importlib.import_module(script)
    from snakernel import proposal  # noqa: F401
    from snakernel.evaluation import call  # noqa: F401
    from snakernel.llm import ledger, limits  # noqa: F401

    warm_parent.Server.of(arguments, carry_out, prepare=prepare).serve()


def prepare(request: dict[str, Any]) -> None:
    """Before a fork: do what all forks for this script would do, once."""
    if request["script"] == "propose":
        _prepare_to_ask(Path(request["config"]))
    if request["script"] == "evaluate":
        _prepare_to_judge(Path(request["config"]))


@cache
def _prepare_to_judge(config: Path) -> None:
    """Look for the CUDA devices."""
    from snakernel.config import read_config
    from snakernel.evaluation.devices import cuda_devices

    settings = read_config(config)
    if settings.eval_backend == "local" and settings.slurm_job is None:
        cuda_devices()


@cache
def _prepare_to_ask(config: Path) -> None:
    """Import the SDKs of the services and of the optimiser."""
    from snakernel.config import read_config
    from snakernel.llm.providers import load_sdk

    settings = read_config(config)
    if settings.asks_a_service:
        for service in settings.services:
            load_sdk(service)
    if settings.agent_type == "sweep" or settings.sweep_steps:
        import optuna.trial  # noqa: F401


def carry_out(request: dict[str, Any]) -> int | None:
    """In a fork: run a job's script. Clients, connections and locks are the fork's own."""
    if request["script"] not in worker.SCRIPTS:
        raise ValueError(f"{request['script']!r} is no light job")
    worker.is_fork = True
    os.environ.update(request["threads"])
    sys.argv = [request["script"], *request["arguments"]]
    return importlib.import_module(request["script"]).main()


if __name__ == "__main__":
    gc.disable()  # importing makes many objects that stay
    run_main(main)
