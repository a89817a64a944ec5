"""What the evaluator can be asked to do. Arguments are texts, results are files; output goes to the caller's log."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
import triton.language  # noqa: F401  (a kernel imports it first thing: once, before any fork)
from flashinfer_bench.data import Definition, Solution, Workload

from snakernel import dataset
from snakernel.config import read_config
from snakernel.errors import run_main
from snakernel.evaluation.candidate import KILLED
from snakernel.evaluation.compare import CannotCompare
from snakernel.evaluation.compare import compare as in_turns
from snakernel.evaluation.judge import judge
from snakernel.evaluation.profiling import profile
from snakernel.evaluation.reference import measure_reference as measure
from snakernel.evaluation.solution import read_solution
from snakernel.evaluation.verdict import Evaluation, Reference, Settings
from snakernel.files import read_model, write_model, write_text
from snakernel.processes import KILLED_CODE, die_with

FRESH_SEED = 1_000_003
import_s = 0.0
"""Seconds that this process took to import torch, triton and flashinfer_bench; 0 in a fork of the warm parent."""
afterwards = ExitStack()
"""What an action leaves to be done when its caller has its answer: who calls actions closes it."""


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
    settings, folder = read_config(config), Path(task_folder)
    definition, workloads = _task(folder)
    path = folder / "reference" / "reference.json"
    (folder / "reference" / "expected").mkdir(parents=True, exist_ok=True)
    root = settings.dataset.resolve()

    def measured() -> None:
        with _own_caches():
            reference = measure(folder.name, definition, workloads, Settings.of(settings), root, folder / "reference")
        write_model(path, reference)

    # In a process of its own: the baseline solution's is forked below, which CUDA does not bear.
    if code := _in_fork(measured):
        return code
    reference = read_model(path, Reference)
    solution = dataset.baseline_solution(
        settings.dataset, definition.op_type, definition.name, settings.baseline_author
    )
    if solution is not None:
        evaluation = _judge(folder, partial(read_solution, str(solution)), reference, Settings.of(settings), root)
        code = _code(evaluation.error)
        if evaluation.correct:
            reference.baseline = solution.stem
            for record, result in zip(reference.workloads, evaluation.workloads, strict=True):
                record.baseline = result.latency
        else:
            reference.notes.append(f"the baseline solution {solution.stem} is {evaluation.status}: {evaluation.error}")
        write_model(path, reference)
    for note in reference.notes:
        print(f"note: {note}")
    for one in reference.workloads:
        axes = ", ".join(f"{axis}={value}" for axis, value in one.axes.items())
        baseline = f", baseline {one.baseline.median_ms:.4f} ms" if one.baseline else ""
        print(f"{axes}: {one.latency.median_ms:.4f} ms, {one.latency.calls} calls{baseline}")
    return code


def evaluate(
    config: str, task_folder: str, kernel: str, out: str, *, next_request: Callable[[], dict[str, str]] | None = None
) -> int:
    """Judge the kernel in a file against the task's reference; write the verdict.

    With ``next_request`` it is done as far as it can be without a kernel, and ``next_request`` then waits for these
    arguments: ``kernel`` and ``out`` are those that it gives.
    """
    settings, folder = read_config(config), Path(task_folder)
    reference = read_model(folder / "reference" / "reference.json", Reference)
    root = settings.dataset.resolve()

    def next_kernel(definition: Definition) -> Solution:
        nonlocal kernel, out
        if next_request is not None:
            arguments = next_request()
            kernel, out = arguments["kernel"], arguments["out"]
        return read_solution(kernel, definition)

    standby = next_request is not None
    evaluation = _judge(folder, next_kernel, reference, Settings.of(settings), root, standby=standby)
    if "profile" in settings.feedback and evaluation.correct and evaluation.device.kind == "cuda":
        definition, workloads = _task(folder)
        afterwards.close()  # nothing of the kernel is left that would disturb it
        evaluation.profile = profile(
            definition,
            workloads,
            read_solution(kernel, definition),
            evaluation.workloads,
            seed=settings.seed,
            timeout_s=settings.eval_timeout_s,
            dataset=root,
            hidden=[folder.resolve(), root / "solutions"],
        )
    write_model(out, evaluation)
    return _code(evaluation.error)


def confirm(config: str, task_folder: str, kernel: str, out: str) -> int:
    """Judge the kernel in a file on ``confirm_draws`` draws that no step was judged on; write the verdict."""
    settings, folder = read_config(config), Path(task_folder)
    reference = read_model(folder / "reference" / "reference.json", Reference)
    for record in reference.workloads:
        record.stored = False  # what is kept is of other draws
    own = Settings.of(settings).model_copy(
        update={
            "num_trials": settings.confirm_draws,
            "seed": settings.seed + FRESH_SEED,
            "eval_timeout_s": settings.eval_timeout_s * max(1, settings.confirm_draws / settings.num_trials),
        }
    )
    evaluation = _judge(folder, partial(read_solution, kernel), reference, own, settings.dataset.resolve())
    write_model(out, evaluation)
    return _code(evaluation.error)


def compare(config: str, task_folder: str, first: str, second: str, out: str) -> int:
    """Time two kernels in turns and write {ratio, low, high, rounds}, or {failed, error} where one of them failed."""
    settings, folder = read_config(config), Path(task_folder)
    definition, workloads = _task(folder)
    with _own_caches():
        try:
            found = vars(
                in_turns(
                    definition,
                    workloads,
                    (read_solution(first, definition), read_solution(second, definition)),
                    Settings.of(settings),
                    settings.dataset.resolve(),
                    hidden=[folder.resolve(), settings.dataset.resolve() / "solutions"],
                )
            )
        except CannotCompare as error:
            found = {"failed": error.args[0], "error": error.args[1]}
    write_text(out, json.dumps(found) + "\n")
    return _code(str(found.get("error")))


def nothing() -> int:
    """Do nothing: who asks wants the warm parent to be there."""
    return 0


ACTIONS: dict[str, Callable[..., int]] = {
    "nothing": nothing,
    "check_task": check_task,
    "measure_reference": measure_reference,
    "evaluate": evaluate,
    "confirm": confirm,
    "compare": compare,
}


def _code(error: str) -> int:
    return KILLED_CODE if KILLED in error else 0


def _task(folder: Path) -> tuple[Definition, list[Workload]]:
    return dataset.read_definition(folder / "definition.json"), dataset.read_workloads(folder / "workloads.jsonl")


def _judge(
    folder: Path,
    next_kernel: Callable[[Definition], Solution],
    reference: Reference,
    settings: Settings,
    root: Path,
    *,
    standby: bool = False,
) -> Evaluation:
    """The verdict on a kernel, of the task in a folder."""
    definition, workloads = _task(folder)
    with _own_caches():
        return judge(
            folder.name,
            definition,
            workloads,
            partial(next_kernel, definition),
            reference,
            (folder / "reference").resolve(),
            settings,
            root,
            import_s=import_s,
            standby=standby,
            afterwards=afterwards,
        )


def _in_fork(work: Callable[[], None]) -> int:
    """Do something in a fork of this process; returns its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        die_with(parent)
        code = 1
        try:
            run_main(work)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def _own_caches() -> Iterator[None]:
    """One thread, and a FIB_CACHE_PATH of its own: flashinfer-bench fails where its default is not writable."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    with tempfile.TemporaryDirectory(prefix="snakernel-reference-") as folder:
        os.environ["FIB_CACHE_PATH"] = folder
        yield
