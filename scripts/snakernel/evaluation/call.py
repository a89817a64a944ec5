"""Where scripts call the evaluator: in a fork of the warm parent, in a process of its own, in a job of SLURM's that
stays, or on Modal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from snakernel import warm
from snakernel.config import Config
from snakernel.evaluation.devices import one_device
from snakernel.evaluation.environment import clean_environment
from snakernel.processes import KILLED_CODE

SCRIPT = Path(__file__).parents[2] / "evaluator.py"


def parent_of(config: Config, variables: dict[str, str]) -> warm.Parent | None:
    """The warm parent that judges for a configuration, where the backend needs some environment variables."""
    environment = clean_environment(dict(os.environ)) | variables
    return warm.parent_of(SCRIPT, environment, (str(config.results.resolve()), str(config.dataset.resolve())))


def call_evaluator(config: Config, action: str, arguments: dict[str, str], *, on_device: bool = True) -> int:
    """Run an action of :mod:`snakernel.evaluation.actions` and wait for it; its output is this process's.

    It runs in an environment without keys, and on a CUDA device that is its own meanwhile (``local``), or elsewhere
    (``slurm_job``, ``modal``). Where a kernel was killed it runs once more, since machines kill more often than kernels
    do themselves.

    Args:
        config: the run's configuration.
        action: the action's name.
        arguments: its arguments.
        on_device: it needs the device.

    Returns:
        The action's exit code.

    Raises:
        UserError: ``local`` without a CUDA device; SLURM or Modal that cannot be asked, or fails.
    """
    if on_device and config.eval_backend == "modal":
        from snakernel.evaluation import modal_backend

        return modal_backend.call(config, action, arguments)
    if on_device and config.slurm_job is not None:
        from snakernel.evaluation import slurm

        return slurm.call(config, action, arguments)
    code = _call(config, action, arguments, on_device)
    if code == KILLED_CODE:
        print("the kernel was killed, perhaps by the machine: once more", file=sys.stderr, flush=True)
        code = _call(config, action, arguments, on_device)
    return 0 if code == KILLED_CODE else code


def _call(config: Config, action: str, arguments: dict[str, str], on_device: bool) -> int:
    # Triton reads its variable when it decorates a kernel.
    variables = {} if config.eval_backend == "local" else {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    with one_device() if on_device and config.eval_backend == "local" else nullcontext() as device:
        parent = parent_of(config, variables) if config.warm else None
        if parent is not None:
            asked = {"action": action, "arguments": arguments, "device": device}
            code = warm.call(parent, asked, start=("--idle-s", str(config.warm_idle_s)))
            if code is not None:
                return code
        if device is not None:
            variables["CUDA_VISIBLE_DEVICES"] = device
        request = json.dumps({"action": action, "arguments": arguments})
        command = [sys.executable, str(SCRIPT), "--once", request, "--caller", str(os.getpid())]
        return subprocess.run(command, env=clean_environment(dict(os.environ)) | variables).returncode
