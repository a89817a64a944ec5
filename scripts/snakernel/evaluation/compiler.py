"""Triton's compiler: used once before any kernel comes, since its first use costs a second which a fork then has behind
it, and watched in a kernel's processes."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from filelock import FileLock, Timeout
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


def watch_compiler(locks: Path, *, ahead: bool) -> list[Any]:
    """Have Triton tell which functions it compiles, and compile no variant in two processes at once.

    Args:
        locks: a folder that these processes share.
        ahead: leave a variant that another process compiles; otherwise wait for it, and find it in the cache.

    Returns:
        The functions, as they are compiled.

    Raises:
        ImportError, AttributeError: ``ahead`` cannot be had with this Triton.
    """
    seen: list[Any] = []
    held: list[FileLock] = []

    def before(*, key: Any, fn: Any, **_: Any) -> bool:
        variant = hashlib.sha256(f"{fn.name} {fn.jit_function.cache_key} {key}".encode()).hexdigest()
        _release(held)
        lock = FileLock(locks / variant)
        try:
            lock.acquire(blocking=not ahead, poll_interval=0.002)
        except Timeout:
            return True  # not here
        except OSError:
            return False
        held.append(lock)
        return False

    def after(*, fn: Any, **_: Any) -> None:
        seen.append(fn.jit_function)
        if not ahead:
            _release(held)

    try:
        from triton import knobs

        locks.mkdir(exist_ok=True)
        knobs.runtime.jit_cache_hook, knobs.runtime.jit_post_compile_hook = before, after
        if ahead:
            _launch_nothing(lambda: _release(held))
    except (ImportError, AttributeError):  # another Triton: what a kernel takes of the device is then not known
        if ahead:
            raise
    return seen


def _release(held: list[FileLock]) -> None:
    while held:
        held.pop().release()


def _launch_nothing(done: Callable[[], None]) -> None:
    """Have Triton only compile what is launched from now on; ``done`` is called after each."""
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    run = JITFunction.run

    def compiled(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        try:
            kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
            if kernel is not None:
                kernel._init_handles()  # a Triton before 3.7 builds C code there
            return kernel
        finally:
            done()

    def bench(self: Any, *args: Any, config: Any, **meta: Any) -> list[float]:
        with contextlib.suppress(Exception):  # one that cannot be compiled
            self.fn.run(*args, **meta | config.all_kwargs())
        return [1.0, 1.0, 1.0]

    JITFunction.run, Autotuner._bench = compiled, bench
