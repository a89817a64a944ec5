"""Triton's compiler, used once before any kernel comes: its first use costs a second, and a fork has that behind it."""

from __future__ import annotations

import contextlib
import os
import tempfile

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def _sum(source, target, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(target, tl.sum(tl.load(source + at).to(tl.float32), 0).to(tl.bfloat16))


def warm_up() -> None:
    """Compile a small kernel for a device that need not be there, and load Triton's part that talks to CUDA.

    CUDA is not started. Where Triton is another, or there is no C compiler, kernels pay for that themselves.
    """
    with tempfile.TemporaryDirectory(prefix="snakernel-triton-") as folder, contextlib.suppress(Exception):
        os.environ["TRITON_CACHE_DIR"] = folder
        types = {"source": "*bf16", "target": "*bf16", "SIZE": "constexpr"}
        triton.compile(ASTSource(_sum, types, {"SIZE": 256}), target=GPUTarget("cuda", 90, 32))
        from triton.backends.nvidia.driver import CudaUtils

        CudaUtils()  # one a process; forks inherit it
    os.environ.pop("TRITON_CACHE_DIR", None)
