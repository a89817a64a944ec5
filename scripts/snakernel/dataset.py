"""FlashInfer-Trace datasets: where the files of a task are, and whether they can be used.

Nothing here imports flashinfer_bench or torch, so that a plan of thousands of tasks costs no time: the files are
checked against flashinfer-bench's own models by :func:`check_task`, once per task, in a job.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakernel.errors import UserError
from snakernel.files import read_text

if TYPE_CHECKING:
    from flashinfer_bench.data import Definition, Workload

LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Task:
    """One definition to find a kernel for."""

    op_type: str
    definition: str

    @property
    def name(self) -> str:
        """The task's folder: {op_type}_{definition}, as in the baseline."""
        return f"{self.op_type}_{self.definition}"

    def definition_path(self, dataset: Path) -> Path:
        """Where the definition lies in a dataset."""
        return dataset / "definitions" / self.op_type / f"{self.definition}.json"

    def workloads_path(self, dataset: Path) -> Path:
        """Where the workloads lie in a dataset."""
        return dataset / "workloads" / self.op_type / f"{self.definition}.jsonl"


def read_tasks(tasks_path: Path, dataset: Path) -> list[Task]:
    """The tasks of a list file, in its order, each once.

    A line is an op type, then optional definition names, all separated by commas or spaces; without names, all
    definitions of the op type. Blank lines, and what follows a ``#``, are comments.

    Raises:
        UserError: the dataset or the list is missing, or a line names what the dataset does not have; the nearest
            name is suggested.
    """
    definitions = dataset / "definitions"
    if not definitions.is_dir():
        raise UserError(
            f"{dataset}: no FlashInfer-Trace dataset there (a folder with definitions/ and workloads/); "
            "set dataset_root, or put the dataset at datasets/{test_source}"
        )
    op_types = sorted(folder.name for folder in definitions.iterdir() if folder.is_dir())
    tasks: dict[Task, None] = {}
    for number, line in enumerate(read_text(tasks_path).splitlines(), start=1):
        op_type, *names = line.partition("#")[0].replace(",", " ").split() or [""]
        if not op_type:
            continue
        where = f"{tasks_path}, line {number}"
        if op_type not in op_types:
            raise UserError(f"{where}: unknown op type {op_type!r}{_suggest(op_type, op_types)}")
        known = sorted(file.stem for file in (definitions / op_type).glob("*.json"))
        for name in names or known:
            if name not in known:
                raise UserError(f"{where}: op type {op_type!r} has no definition {name!r}{_suggest(name, known)}")
            tasks[Task(op_type, name)] = None
    if not tasks:
        raise UserError(f"{tasks_path}: names no task; write one op type a line, for example {op_types[0]!r}")
    return list(tasks)


def check_task(task: Task, dataset: Path, max_workloads: int | None = None) -> tuple[Definition, list[Workload]]:
    """Load a task's definition and workloads through flashinfer-bench's models and check that their blobs are there.

    Raises:
        UserError: a file is missing, cut short, has a bad field, belongs to another definition, or is a Git LFS
            pointer.
    """
    from flashinfer_bench.data import Definition, Trace
    from pydantic import BaseModel, ValidationError

    from snakernel.files import explain

    def parse(kind: type[BaseModel], text: str, where: str) -> Any:
        if text.encode().startswith(LFS_POINTER):
            raise UserError(f"{where}: is a Git LFS pointer, not the file itself; run `git lfs pull` in {dataset}")
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            raise UserError(f"{where}: {explain(error)}") from None

    path = task.definition_path(dataset)
    definition: Definition = parse(Definition, read_text(path), str(path))
    if (definition.name, definition.op_type) != (task.definition, task.op_type):
        raise UserError(
            f"{path}: holds definition {definition.name!r} of op type {definition.op_type!r}, "
            f"but its place says {task.definition!r} of {task.op_type!r}"
        )
    path = task.workloads_path(dataset)
    workloads: list[Workload] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        trace: Trace = parse(Trace, line, f"{path}, line {number}")
        if trace.definition != definition.name:
            raise UserError(f"{path}, line {number}: is a workload of {trace.definition!r}, not of {definition.name!r}")
        workloads.append(trace.workload)
    if not workloads:
        raise UserError(f"{path}: holds no workload")
    workloads = workloads[:max_workloads]
    for workload in workloads:
        _check_blobs(definition, workload, dataset, path)
    return definition, workloads


def baseline_solution(dataset: Path, op_type: str, definition: str, author: str) -> Path | None:
    """The dataset's own solution of a definition, by an author of that name; of several, the first by name."""
    found = sorted((dataset / "solutions" / author / op_type / definition).glob("*.json"))
    return found[0] if found else None


def read_definition(path: Path | str) -> Definition:
    """The definition.json of a task's folder."""
    from flashinfer_bench.data import Definition

    from snakernel.files import read_model

    return read_model(path, Definition)


def read_workloads(path: Path | str) -> list[Workload]:
    """The workloads.jsonl of a task's folder: one workload a line."""
    from flashinfer_bench.data import Workload

    return [Workload.model_validate_json(line) for line in read_text(path).splitlines() if line.strip()]


def _check_blobs(definition: Definition, workload: Workload, dataset: Path, where: Path) -> None:
    missing = [name for name in definition.inputs if name not in workload.inputs]
    if missing:
        raise UserError(f"{where}: workload {workload.uuid} says nothing of the input {missing[0]!r}")
    missing = [axis for axis in definition.var_axes if axis not in workload.axes]
    if missing:
        raise UserError(f"{where}: workload {workload.uuid} gives no value for the axis {missing[0]!r}")
    for name, spec in workload.inputs.items():
        if spec.type != "safetensors":
            continue
        blob = dataset / spec.path
        try:
            with blob.open("rb") as file:
                head = file.read(len(LFS_POINTER))
        except OSError:
            raise UserError(
                f"{where}: workload {workload.uuid} takes {name!r} from {blob}, which is not there"
            ) from None
        if head == LFS_POINTER:
            raise UserError(f"{blob}: is a Git LFS pointer, not the file itself; run `git lfs pull` in {dataset}")


def _suggest(name: str, known: list[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1)
    if match:
        return f"; did you mean {match[0]!r}?"
    return f"; there are: {', '.join(known)}" if known else "; the folder holds none"
