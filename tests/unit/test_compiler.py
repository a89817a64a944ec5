"""Who of a kernel's processes compiles a variant."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

FUNCTION = SimpleNamespace(name="kernel", jit_function=SimpleNamespace(cache_key="source"))


class Process:
    """What Triton calls in one of the processes."""

    def __init__(self, folder: Path, *, ahead: bool):
        from snakernel.evaluation.compiler import watch_compiler
        from triton import knobs  # here: it is to find TRITON_INTERPRET set

        self.compiled = watch_compiler(folder, ahead=ahead)
        self._before, self._after = knobs.runtime.jit_cache_hook, knobs.runtime.jit_post_compile_hook

    def leaves(self, variant: str) -> bool:
        return self._before(key=variant, fn=FUNCTION, repr="", compile={})

    def has_compiled(self, variant: str) -> None:
        self._after(key=variant, fn=FUNCTION, repr="", compile={})


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Process, Process]:
    """The process that runs the kernel, and one that compiles ahead."""
    from triton import knobs
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    for name in ("jit_cache_hook", "jit_post_compile_hook"):
        monkeypatch.setattr(knobs.runtime, name, None)
    monkeypatch.setattr(JITFunction, "run", JITFunction.run)
    monkeypatch.setattr(Autotuner, "_bench", Autotuner._bench)
    return Process(tmp_path / "locks", ahead=False), Process(tmp_path / "locks", ahead=True)


def test_what_one_compiles_is_left_by_who_compiles_ahead(runs: tuple[Process, Process]) -> None:
    kernel, ahead = runs
    assert not kernel.leaves("rows=1")
    assert ahead.leaves("rows=1")
    assert not ahead.leaves("rows=16")
    kernel.has_compiled("rows=1")
    assert not ahead.leaves("rows=1")
    assert kernel.compiled == [FUNCTION.jit_function]


def test_who_runs_the_kernel_waits_for_what_is_compiled_ahead(runs: tuple[Process, Process]) -> None:
    kernel, ahead = runs
    assert not ahead.leaves("rows=16")
    came = threading.Event()
    waits = threading.Thread(target=lambda: (kernel.leaves("rows=16"), came.set()))
    waits.start()
    assert not came.wait(0.2)
    assert not ahead.leaves("rows=32")  # it has built all of the one before
    assert came.wait(20)
    waits.join()
