"""Where scripts call the evaluator: in a fork of the warm parent, in a process of its own, in a job of SLURM's that
stays, or on Modal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext

from snakernel.config import Config
from snakernel.evaluation import warm
from snakernel.evaluation.devices import one_device
from snakernel.evaluation.environment import clean_environment


def call_evaluator(config: Config, action: str, arguments: dict[str, str], *, on_device: bool = True) -> int:
    """Run an action of :mod:`snakernel.evaluation.actions` and wait for it; its output is this process's.

    It runs in an environment without keys, and on a CUDA device that is its own meanwhile (``local``), or elsewhere
    (``slurm_job``, ``modal``).

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
    # Triton reads its variable when it decorates a kernel.
    variables = {} if config.eval_backend == "local" else {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    with one_device() if on_device and config.eval_backend == "local" else nullcontext() as device:
        if config.warm:
            code = warm.call(config, variables, action, arguments, device)
            if code is not None:
                return code
        if device is not None:
            variables["CUDA_VISIBLE_DEVICES"] = device
        request = json.dumps({"action": action, "arguments": arguments})
        command = [sys.executable, str(warm.SCRIPT), "--once", request, "--caller", str(os.getpid())]
        return subprocess.run(command, env=clean_environment(dict(os.environ)) | variables).returncode
