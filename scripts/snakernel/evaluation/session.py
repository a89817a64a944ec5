"""What every script that evaluates does first: a clean environment, one device, the imports."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from snakernel.config import Config
from snakernel.errors import UserError
from snakernel.evaluation.devices import one_device
from snakernel.evaluation.environment import restart_clean
from snakernel.evaluation.verdict import Settings


@dataclass(frozen=True)
class Session:
    """A process that may evaluate."""

    settings: Settings
    dataset: Path
    import_s: float
    """Seconds that importing torch and flashinfer_bench took."""


def evaluation_settings(config: Config) -> Settings:
    """The part of a configuration that a verdict depends on."""
    return Settings(**{name: getattr(config, name) for name in Settings.model_fields})


def restart_for(config: Config) -> None:
    """Start this script again in the environment that a configuration's backend needs; at once where it has it.

    Raises:
        UserError: a backend that is not there.
    """
    if config.eval_backend == "modal":
        raise UserError("eval_backend 'modal' cannot be run by this version; use 'local' (a CUDA device) or 'cpu'")
    # Triton reads its variable when it decorates a kernel.
    variables = {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""} if config.eval_backend == "cpu" else {}
    restart_clean(**variables)


@contextmanager
def evaluation_session(config: Config) -> Iterator[Session]:
    """Hold a device (``local``) and have torch and flashinfer_bench imported, in an environment without keys.

    The script is started again for that, so this must be called before anything that costs time.

    Raises:
        UserError: ``local`` without a CUDA device; a backend that is not there.
    """
    restart_for(config)
    with one_device() if config.eval_backend == "local" else nullcontext() as device, _own_caches():
        if device is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = device
        begun = time.perf_counter()
        import flashinfer_bench.bench
        import torch

        if config.eval_backend == "cpu":
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
        yield Session(
            settings=evaluation_settings(config), dataset=config.dataset.resolve(), import_s=time.perf_counter() - begun
        )
        del flashinfer_bench


@contextmanager
def _own_caches() -> Iterator[None]:
    """A FIB_CACHE_PATH for the reference's build: flashinfer-bench fails where its default is not writable."""
    with tempfile.TemporaryDirectory(prefix="snakernel-reference-") as folder:
        os.environ["FIB_CACHE_PATH"] = folder
        yield
