"""What the evaluator can be asked to do. Arguments are texts, results are files; output goes to the caller's log."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import triton.language  # noqa: F401  (a kernel imports it first thing: once, before any fork)

from snakernel import dataset
from snakernel.config import read_config
from snakernel.evaluation.judge import judge
from snakernel.evaluation.reference import measure_reference as measure
from snakernel.evaluation.verdict import Reference, Settings
from snakernel.files import read_model, read_text, write_model, write_text

import_s = 0.0
"""Seconds that this process took to import torch, triton and flashinfer_bench; 0 in a fork of the warm parent."""


def check_task(config: str, op_type: str, definition: str, out: str) -> int:
    """Check a task's files in the dataset; write definition.json, reference.py and workloads.jsonl into ``out``."""
    settings = read_config(config)
    task = dataset.Task(op_type, definition)
    checked, workloads = dataset.check_task(task, settings.dataset, settings.max_workloads)
    write_text(Path(out) / "definition.json", checked.model_dump_json(indent=2) + "\n")
    write_text(Path(out) / "reference.py", checked.reference.strip("\n") + "\n")
    write_text(Path(out) / "workloads.jsonl", "".join(workload.model_dump_json() + "\n" for workload in workloads))
    print(f"{task.name}: {len(workloads)} workloads")
    return 0


def measure_reference(config: str, task_folder: str) -> int:
    """Measure a task's reference; write reference/reference.json and the expected outputs that are kept."""
    settings = read_config(config)
    folder = Path(task_folder)
    (folder / "reference" / "expected").mkdir(parents=True, exist_ok=True)
    with _own_caches():
        reference = measure(
            folder.name,
            dataset.read_definition(folder / "definition.json"),
            dataset.read_workloads(folder / "workloads.jsonl"),
            Settings.of(settings),
            settings.dataset.resolve(),
            folder / "reference",
        )
    write_model(folder / "reference" / "reference.json", reference)
    for note in reference.notes:
        print(f"note: {note}")
    for one in reference.workloads:
        axes = ", ".join(f"{axis}={value}" for axis, value in one.axes.items())
        print(f"{axes}: {one.latency.median_ms:.4f} ms, {one.latency.calls} calls")
    return 0


def evaluate(config: str, task_folder: str, kernel: str, out: str) -> int:
    """Judge the kernel in a file against the task's reference; write the verdict."""
    settings = read_config(config)
    folder = Path(task_folder)
    with _own_caches():
        evaluation = judge(
            folder.name,
            dataset.read_definition(folder / "definition.json"),
            dataset.read_workloads(folder / "workloads.jsonl"),
            read_text(kernel),
            read_model(folder / "reference" / "reference.json", Reference),
            (folder / "reference").resolve(),
            Settings.of(settings),
            settings.dataset.resolve(),
            import_s=import_s,
        )
    write_model(out, evaluation)
    return 0


ACTIONS: dict[str, Callable[..., int]] = {
    "check_task": check_task,
    "measure_reference": measure_reference,
    "evaluate": evaluate,
}


@contextmanager
def _own_caches() -> Iterator[None]:
    """One thread, and a FIB_CACHE_PATH of its own: flashinfer-bench fails where its default is not writable."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    with tempfile.TemporaryDirectory(prefix="snakernel-reference-") as folder:
        os.environ["FIB_CACHE_PATH"] = folder
        yield
