"""What runs on Modal: the image, the Volume, and one function an access to it. Imported here and in the container."""

from __future__ import annotations

import tempfile
from pathlib import Path

import modal

from snakernel.evaluation.remote import Answer, Request, carry_out

NAME = "snakernel"
"""The Volume, and the first part of the app's name."""
MOUNT = Path("/mnt/snakernel")
CODE = "/root"
"""Where Modal looks for modules."""
BASE = "nvidia/cuda:13.1.0-devel-ubuntu24.04"
"""With nvcc, for baseline solutions that are compiled when they are first called."""
PYTHON = "3.12"
TIMEOUT_S = 3600
"""A request that takes longer is stuck: the evaluator has a limit of its own for each workload."""
BACKEND = "local"
"""The eval_backend in the container."""

SCRIPTS = Path(__file__).parents[2]
REQUIREMENTS = SCRIPTS.parent / "requirements.txt"

VOLUME = modal.Volume.from_name(NAME, create_if_missing=True)
IMAGE = (
    modal.Image.from_registry(BASE, add_python=PYTHON)
    .apt_install("build-essential")
    .pip_install_from_requirements(str(REQUIREMENTS))
    .env({"PYTHONPATH": CODE})
    .add_local_dir(SCRIPTS, CODE, ignore=["**/__pycache__/**"])
)
# No secret is given to a function, and none of this machine's environment.
APP = modal.App(NAME, image=IMAGE, include_source=False)
# An input whose container is preempted is run again in another one, as is one that failed for no fault of the kernel.
RETRIES = modal.Retries(max_retries=3, backoff_coefficient=2.0, initial_delay=2.0)


@APP.function(volumes={str(MOUNT): VOLUME}, retries=RETRIES, timeout=TIMEOUT_S)
def measure(request: Request) -> Answer:
    """Measure a reference and keep it in the Volume: only this function can write to it. It runs the dataset's own
    code, its reference and its baseline solution, and no candidate."""
    _see_uploads()
    answer = carry_out(request, MOUNT, _work(), BACKEND)
    if not modal.is_local():
        VOLUME.commit()
    return answer


@APP.function(
    volumes={str(MOUNT): VOLUME.with_mount_options(read_only=True)},
    retries=RETRIES,
    timeout=TIMEOUT_S,
    block_network=True,
)
def judge(request: Request) -> Answer:
    """Carry out an action on kernels that nobody has read: no network, and a Volume that cannot be written to."""
    _see_uploads()
    return carry_out(request, MOUNT, _work(), BACKEND)


def _see_uploads() -> None:
    """A container sees the Volume as it was when it started, until it asks."""
    if not modal.is_local():
        VOLUME.reload()


def _work() -> Path:
    return Path(tempfile.gettempdir()) / "snakernel-work"
