"""Triton's compiler, used once before any kernel comes: its first use costs a second, and a fork has that behind it."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from snakernel.files import scratch_folder


@triton.jit
def _sum(source, target, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(target, tl.sum(tl.load(source + at).to(tl.float32), 0).to(tl.bfloat16))


BUILT = ""
"""Folder of what was built for all kernels alike, C code of Triton's own; empty where nothing was."""


def warm_up() -> None:
    """Compile a small kernel for a device that need not be there, and build Triton's part that talks to CUDA.

    CUDA is not started. Where Triton is another, or there is no C compiler, kernels pay for that themselves.
    """
    global BUILT
    kept = contextlib.ExitStack()
    cache = kept.enter_context(scratch_folder())
    atexit.register(kept.close)
    with contextlib.suppress(Exception):
        os.environ["TRITON_CACHE_DIR"] = f"{cache}/kernel"
        types = {"source": "*bf16", "target": "*bf16", "SIZE": "constexpr"}
        triton.compile(ASTSource(_sum, types, {"SIZE": 256}), target=GPUTarget("cuda", 90, 32))
        os.environ["TRITON_CACHE_DIR"] = f"{cache}/built"
        from triton.backends.nvidia.driver import CudaUtils

        CudaUtils()
        BUILT = f"{cache}/built"
    os.environ.pop("TRITON_CACHE_DIR", None)


def give_built(folder: Path) -> None:
    """Put a copy of what was built into a kernel's own cache: no kernel writes where another one reads."""
    if BUILT:
        shutil.copytree(BUILT, folder, dirs_exist_ok=True)
