"""Who of a kernel's processes compiles a variant."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

FUNCTION = SimpleNamespace(name="kernel", jit_function=SimpleNamespace(cache_key="source", __name__="kernel"))


class Process:
    """What Triton calls in one of the processes."""

    def __init__(self, folder: Path, *, ahead: bool):
        from snakernel.evaluation.compiler import watch_compiler
        from triton import knobs  # here: it is to find TRITON_INTERPRET set

        self.compiled = watch_compiler(folder, ahead=ahead)
        self._before, self._after = knobs.runtime.jit_cache_hook, knobs.runtime.jit_post_compile_hook

    def leaves(self, variant: str) -> bool:
        compiled = {"signature": {"x": variant}, "constants": {}}
        return self._before(key=variant, fn=FUNCTION, repr="", compile=compiled)

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


def test_what_launches_a_variant_is_built_while_that_is_compiled(
    runs: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    import triton

    begun, built = threading.Event(), threading.Event()
    signatures = []

    def build(source: object, metadata: object) -> None:
        begun.set()
        built.wait(20)
        signatures.append(source.signature)

    monkeypatch.setattr(triton.runtime.driver, "_active", SimpleNamespace(launcher_cls=build))
    kernel, _ = runs
    assert not kernel.leaves("i32")
    assert begun.wait(20) and signatures == []  # Triton is free to compile
    threading.Timer(0.1, built.set).start()
    kernel.has_compiled("i32")
    assert signatures == [{"x": "i32"}]


def test_workloads_of_which_triton_makes_other_variants_come_first() -> None:
    from snakernel.evaluation.compiler import variants_first

    workloads = [SimpleNamespace(axes={"rows": rows}) for rows in (6, 34, 1, 7, 16, 48)]
    assert [one.axes["rows"] for one in variants_first(workloads)] == [6, 1, 16, 34, 7, 48]
