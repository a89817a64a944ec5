"""An action carried out in another machine's container: what it is asked, and what it answers.

Files of the dataset come by their content's hash from a store that both machines see; small ones (the task's, kernels)
come with the request. The container keeps what it has placed and the warm parent from one request to the next.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import landlockpy

from snakernel.config import Config, config_yaml, load_config
from snakernel.errors import UserError
from snakernel.evaluation.call import call_evaluator
from snakernel.evaluation.verdict import Reference, expected_path
from snakernel.files import digest_texts, read_model, read_text, write_model, write_text

NOT_KEPT = (
    "expected outputs are not kept: this container's kernel has no Landlock to hide them from kernels, so every "
    "evaluation computes them again"
)


@dataclass
class Request:
    """One action, and all that it needs."""

    action: str
    """A name in :mod:`snakernel.evaluation.actions`."""
    config: dict[str, Any]
    """The run's configuration; it holds no secret."""
    task: str
    """The task."""
    stored: dict[str, str]
    """Files of the dataset that lie in the store: path below the dataset's folder, and the content's hash."""
    checked: dict[str, str]
    """The task's files that are among these: name in the task's folder, and path below the dataset's."""
    sent: dict[str, str]
    """Texts that come with the request, by their paths: ``task/...`` is the task's folder, ``dataset/...`` the
    dataset's, ``kernels/...`` what is judged. None of them is kept."""
    arguments: dict[str, str]
    """The action's arguments that are files of ``sent``, by their paths there."""
    key: str
    """What a reference depends on, in a hash: one that was measured for the same is not measured again."""


@dataclass
class Answer:
    """How an action ended."""

    code: int
    """Its exit code."""
    log: str
    """What it printed."""
    files: dict[str, str] = field(default_factory=dict)
    """What it wrote: ``out``, or ``reference.json``."""
    seconds: float = 0.0
    """How long it took in the container."""
    reused: bool = False
    """The reference was measured by an earlier request."""


def sha256(path: Path) -> str:
    """The hash of a file's content, by which it is stored."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def carry_out(request: Request, store: Path, work: Path, backend: str = "local") -> Answer:
    """Carry out an action in this container.

    Args:
        request: what is asked.
        store: the folder of what is stored by content: files/, references/, expected/.
        work: a folder of this container's own, where the dataset is placed.
        backend: the eval_backend here; ``cpu`` where there is no GPU.

    Returns:
        What the caller gets; a fault that the user can put right is an exit code and a line of the log.
    """
    begun = time.monotonic()
    kept = store / "references" / f"{request.key}.json"
    if request.action == "measure_reference" and kept.is_file():
        text = kept.read_text(encoding="utf-8")
        return Answer(0, f"{request.task}: the reference was measured before\n", {"reference.json": text}, reused=True)
    dataset = work / "dataset"
    lines: list[str] = []
    # What a request brings is not there for the next one.
    shutil.rmtree(dataset / "solutions", ignore_errors=True)
    code, files = 1, {}
    try:
        with tempfile.TemporaryDirectory(prefix="snakernel-remote-") as scratch, _output(lines):
            place(request.stored, store / "files", dataset)
            code, files = _run(request, store, dataset, Path(scratch), work, backend)
    except UserError as error:
        lines.append(f"error: {error}\n")
    return Answer(code, "".join(lines), files, seconds=time.monotonic() - begun)


def place(stored: dict[str, str], files: Path, dataset: Path) -> None:
    """Bring files of the store to their places in the dataset; those that are there already stay.

    Raises:
        UserError: the store does not have a file, or has it damaged.
    """
    for name, content in stored.items():
        path = _inside(dataset, name)
        if _placed.get(path) == content and path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        try:
            shutil.copyfile(files / content, part)
        except FileNotFoundError:
            raise UserError(f"{name}: the store has no file {content}; run again, and it is uploaded again") from None
        if sha256(part) != content:
            part.unlink()
            raise UserError(f"{name}: is damaged in the store; delete its file files/{content} there and run again")
        os.replace(part, path)
        _placed[path] = content


_placed: dict[Path, str] = {}
"""What this process has placed, with its hash: it need not be read again."""


def _run(
    request: Request, store: Path, dataset: Path, scratch: Path, work: Path, backend: str
) -> tuple[int, dict[str, str]]:
    config = _here(request, dataset, work, backend)
    task = scratch / "task" / request.task
    roots = {"task": task, "dataset": dataset, "kernels": scratch / "kernels"}
    paths = {}
    for name, text in request.sent.items():
        root, _, rest = name.partition("/")
        paths[name] = _inside(roots[root], rest)
        write_text(paths[name], text)
    for name, where in request.checked.items():
        write_text(task / name, read_text(dataset / where))
    write_text(scratch / "config.yaml", config_yaml(config))
    arguments = {"config": str(scratch / "config.yaml"), "task_folder": str(task)}
    if request.action == "measure_reference":
        code = call_evaluator(config, request.action, arguments)
        return code, {} if code else {"reference.json": _keep(request, task / "reference", store)}
    if (task / "reference" / "reference.json").is_file():
        _bring_expected(read_model(task / "reference" / "reference.json", Reference), task / "reference", store)
    out = scratch / "out.json"
    arguments |= {name: str(paths[where]) for name, where in request.arguments.items()} | {"out": str(out)}
    code = call_evaluator(config, request.action, arguments)
    return code, {} if code else {"out": out.read_text(encoding="utf-8")}


def _here(request: Request, dataset: Path, work: Path, backend: str) -> Config:
    """The run's configuration with this container's device and folders."""
    changes = {"eval_backend": backend, "dataset_root": str(dataset), "save_path": str(work / "results"), "run": "run"}
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        changes["warm"] = False  # the warm parent needs it, and not every sandbox's kernel has it
    return load_config(request.config | changes)


def _inside(root: Path, name: str) -> Path:
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{name}: is no path inside a task or a dataset")
    return path


def _keep(request: Request, folder: Path, store: Path) -> str:
    """Keep a new reference in the store; returns its text."""
    reference = read_model(folder / "reference.json", Reference)
    hideable = landlockpy.abi_version() > 0
    for record in reference.workloads:
        if not record.stored:
            continue
        if hideable:
            kept = expected_in(store, record.expected)
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(".part")
            shutil.copyfile(expected_path(folder, record.uuid), part)
            os.replace(part, kept)
        else:
            record.stored, record.expected = False, []
    if not hideable:
        reference.notes.append(NOT_KEPT)
    reference.settings.eval_backend = request.config["eval_backend"]
    write_model(store / "references" / f"{request.key}.json", reference)
    return (store / "references" / f"{request.key}.json").read_text(encoding="utf-8")


def _bring_expected(reference: Reference, folder: Path, store: Path) -> None:
    """Place the expected outputs that are kept; the evaluator checks them, and computes what is missing."""
    for record in reference.workloads:
        if record.stored and expected_in(store, record.expected).is_file():
            path = expected_path(folder, record.uuid)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(expected_in(store, record.expected), path)


def expected_in(store: Path, checksums: list[str]) -> Path:
    """Where the expected outputs with some checksums are kept."""
    return store / "expected" / f"{digest_texts(checksums)}.safetensors"


@contextmanager
def _output(lines: list[str]) -> Iterator[None]:
    """Collect what this process and its children print: the evaluator's forks write to descriptors 1 and 2."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as log:
        try:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in enumerate(saved, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)
            log.seek(0)
            lines.append(log.read().decode("utf-8", errors="replace"))
