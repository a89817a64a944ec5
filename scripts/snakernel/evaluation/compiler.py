"""Triton's compiler: used once before any kernel comes, since its first use costs a second which a fork then has behind
it, and watched in a kernel's processes."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl
from filelock import FileLock, Timeout
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from snakernel.files import scratch_folder

if TYPE_CHECKING:
    from flashinfer_bench.data import Workload


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

    What launches a variant, C code of a Triton before 3.7, is built meanwhile, and not after it.

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
    building: list[threading.Thread] = []

    def before(*, key: Any, fn: Any, compile: dict[str, Any], **_: Any) -> bool:
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
        building.append(threading.Thread(target=_build_launcher, args=(fn.jit_function, compile), daemon=True))
        building[-1].start()
        return False

    def after(*, fn: Any, **_: Any) -> None:
        seen.append(fn.jit_function)
        while building:
            building.pop().join()
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


def variant(workload: Workload) -> tuple[object, ...]:
    """What Triton is likely to compile a kernel anew for: it does so for sizes that are 1 or multiples of 16
    (triton.runtime.jit)."""
    return tuple((size == 1, size % 16 == 0) for size in workload.axes.values())


def variants_first(workloads: Sequence[Workload]) -> list[Workload]:
    """Workloads in an order in which those come first that are the first of their variant."""
    seen: set[tuple[object, ...]] = set()
    first, others = [], []
    for workload in workloads:
        (others if variant(workload) in seen else first).append(workload)
        seen.add(variant(workload))
    return first + others


def _build_launcher(function: Any, compiled: dict[str, Any]) -> None:
    """Have Triton build what will launch a variant, so that it finds that in its cache; it follows from the types."""
    with contextlib.suppress(Exception):  # then Triton does it itself, once it has compiled the variant
        source = ASTSource(function, compiled["signature"], compiled["constants"])
        triton.runtime.driver.active.launcher_cls(source, SimpleNamespace())


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
