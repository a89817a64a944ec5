"""``eval_backend: modal``: actions are carried out on a GPU that Modal rents by the second.

What a task needs of the dataset is uploaded to a Volume once, by the hash of its content; the app is deployed once for
each state of the code, so that the jobs of a run find its containers warm.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from snakernel import dataset
from snakernel.config import Config
from snakernel.errors import UserError
from snakernel.files import digest, digest_texts, read_json, read_model, read_text, write_json, write_model, write_text

if TYPE_CHECKING:
    from snakernel.evaluation.remote import Answer, Request

PRICES_FROM = "modal.com/pricing as quoted on 2026-05-07; the GPU alone"
"""Where the prices below are from, and what they are of: CPU cores and memory come on top, regions may cost more."""


@dataclass(frozen=True)
class Gpu:
    """A GPU type that can be asked for."""

    asked: str
    """Modal's name of exactly this one: some names may be answered with a better GPU, and times would not compare."""
    usd_per_s: float | None = None
    """US dollars a second; None where no source was found."""


GPUS = {
    "T4": Gpu("T4", 0.000164),
    "L4": Gpu("L4", 0.000222),
    "A10": Gpu("A10"),
    "A10G": Gpu("A10"),
    "L40S": Gpu("L40S", 0.000542),
    "A100": Gpu("A100-40GB"),
    "A100-40GB": Gpu("A100-40GB"),
    "A100-80GB": Gpu("A100-80GB", 0.000694),
    "RTX-PRO-6000": Gpu("RTX-PRO-6000"),
    "H100": Gpu("H100!", 0.001097),
    "H100!": Gpu("H100!", 0.001097),
    "H200": Gpu("H200"),
    "B200": Gpu("B200"),
}


def check_gpu(config: Config) -> Gpu:
    """The GPU type that is to be asked for.

    Raises:
        UserError: it is unknown.
    """
    gpu = GPUS.get(config.modal_gpu.upper())
    if gpu is None:
        raise UserError(f"modal_gpu: {config.modal_gpu!r} is no GPU type of Modal's; one of {', '.join(GPUS)}")
    return gpu


def check_modal(config: Config) -> Gpu:
    """Check that Modal can be asked, before anything is spent; returns the GPU type.

    Raises:
        UserError: the package or a token is missing, or the GPU type is unknown.
    """
    gpu = check_gpu(config)
    if importlib.util.find_spec("modal") is None:
        raise UserError(
            "eval_backend 'modal' needs the package modal: pip install -r requirements-modal.txt, in the environment "
            "that runs the workflow (docs/modal.md)"
        )
    # Whether they are there, never what they are.
    told = [bool(os.environ.get(name)) for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET")]
    file = Path(os.environ.get("MODAL_CONFIG_PATH") or "~/.modal.toml").expanduser()
    if not all(told) and (any(told) or not (file.is_file() or os.environ.get("MODAL_OAUTH_REFRESH_TOKEN"))):
        raise UserError(
            f"eval_backend 'modal' needs a token: run `modal setup`, which writes {file}, or set both MODAL_TOKEN_ID "
            "and MODAL_TOKEN_SECRET"
        )
    return gpu


def call(config: Config, action: str, arguments: dict[str, str]) -> int:
    """Carry out an action on Modal, with the same files as a result; its output is this process's.

    Returns:
        The action's exit code.

    Raises:
        UserError: what :func:`check_modal` finds, a file of the dataset is missing, or Modal itself fails.
    """
    gpu = check_modal(config)
    import modal

    from snakernel.evaluation import modal_app

    request, uploads = plan(config, action, arguments)
    function = "measure" if action == "measure_reference" else "judge"
    try:
        upload(modal_app.VOLUME, uploads)
        answer: Answer = run(function, request, gpu=gpu.asked, idle_s=config.modal_idle_s)
    except modal.exception.AuthError:
        raise UserError("Modal refuses the token that it was given; `modal setup` makes another") from None
    except modal.exception.Error as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"Modal failed: {told}; run again, and what is done stays done") from None
    print(answer.log, end="", flush=True)
    usd = _price(config, gpu)
    cost = None if usd is None else answer.seconds * usd
    told = "its price is not known: set modal_price" if cost is None else f"about {cost:.6f} USD"
    print(f"Modal, {gpu.asked}: {answer.seconds:.2f} s, {told}", file=sys.stderr)
    if not answer.code:
        _write(config, action, arguments, answer, gpu, cost)
    return answer.code


def plan(config: Config, action: str, arguments: dict[str, str]) -> tuple[Request, dict[str, Path]]:
    """What an action needs there: the request, and the files that the Volume must have, by their hashes.

    Kernels and solutions are sent with the request and never stored: a candidate must find nobody else's.
    """
    from snakernel.evaluation.remote import Request

    folder = Path(arguments["task_folder"])
    task, root = folder.name, config.dataset
    definition = dataset.read_definition(folder / "definition.json")
    workloads = dataset.read_workloads(folder / "workloads.jsonl")
    # As they were checked, not as the dataset has them by now.
    files = {"definition.json": folder / "definition.json", "workloads.jsonl": folder / "workloads.jsonl"}
    blobs = {
        spec.path: root / spec.path
        for workload in workloads
        for spec in workload.inputs.values()
        if spec.type == "safetensors"
    }
    hashes = _hashes(folder / "reference" / "uploads.json", [*files.values(), *blobs.values()])
    own = dataset.Task(definition.op_type, definition.name)
    at = {"definition.json": own.definition_path(Path()), "workloads.jsonl": own.workloads_path(Path())}
    checked = {name: str(path) for name, path in at.items()}
    stored = {checked[name]: hashes[path] for name, path in files.items()}
    stored |= {name: hashes[path] for name, path in blobs.items()}
    sent: dict[str, str] = {}
    where: dict[str, str] = {}
    solution = None
    if action == "measure_reference":
        solution = dataset.baseline_solution(root, definition.op_type, definition.name, config.baseline_author)
        if solution is not None:
            sent[f"dataset/{solution.relative_to(root)}"] = read_text(solution)
    else:
        if action != "compare":
            sent["task/reference/reference.json"] = read_text(folder / "reference" / "reference.json")
        for name in ("kernel", "first", "second"):
            if name in arguments:
                path = Path(arguments[name])
                where[name] = f"kernels/{name}{path.suffix}"
                sent[where[name]] = read_text(path)
    from snakernel.evaluation.verdict import Settings

    parts = [app_name(), config.modal_gpu.upper(), task, Settings.of(config).model_dump_json()]
    parts += [f"{name} {content}" for name, content in sorted(stored.items())]
    parts += [f"{solution.name} {sent[f'dataset/{solution.relative_to(root)}']}"] if solution else []
    request = Request(action, config.model_dump(), task, stored, checked, sent, where, digest_texts(parts))
    return request, {hashes[path]: path for path in [*files.values(), *blobs.values()]}


def upload(volume: Any, uploads: dict[str, Path]) -> int:
    """Upload the files that the Volume does not have yet; returns how many.

    Args:
        volume: a :class:`modal.Volume`.
        uploads: files by the hash of their content.
    """
    with FileLock(_lock("upload")):
        missing = sorted(set(uploads) - _names(volume))
        if missing:
            size = sum(uploads[content].stat().st_size for content in missing)
            print(f"Modal: uploading {len(missing)} files, {size / 1e6:.1f} MB", file=sys.stderr, flush=True)
            # With force, a file that is there already is no error.
            with volume.batch_upload(force=True) as batch:
                for content in missing:
                    batch.put_file(uploads[content], f"/files/{content}")
        return len(missing)


def run(function: str, request: Request, *, gpu: str, idle_s: int) -> Answer:
    """Run a function of the app on a GPU; the app is deployed where this state of the code is not yet."""
    import modal

    from snakernel.evaluation import modal_app

    def find() -> Any:
        found = modal.Function.from_name(app_name(), function)
        found.hydrate()
        return found

    try:
        found = find()
    except modal.exception.NotFoundError:
        with FileLock(_lock("deploy")):
            try:
                found = find()
            except modal.exception.NotFoundError:
                print(f"Modal: deploying the app {app_name()}", file=sys.stderr, flush=True)
                with modal.enable_output():
                    modal_app.APP.deploy(name=app_name())
                found = find()
    return found.with_options(gpu=gpu, scaledown_window=idle_s).remote(request)


def app_name() -> str:
    """The app's name: with a hash of the code and the pins, so that a changed evaluator is another app."""
    scripts = Path(__file__).parents[2]
    return f"snakernel-{digest(scripts, scripts.parent / 'requirements.txt')}"


def _write(
    config: Config, action: str, arguments: dict[str, str], answer: Answer, gpu: Gpu, cost: float | None
) -> None:
    """Write what the action would have written here."""
    from snakernel.evaluation.verdict import Evaluation, Rented

    if action == "measure_reference":
        folder = Path(arguments["task_folder"]) / "reference"
        (folder / "expected").mkdir(parents=True, exist_ok=True)  # they stay in the Volume
        write_text(folder / "reference.json", answer.files["reference.json"])
    elif action == "compare":
        write_text(arguments["out"], answer.files["out"])
    else:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "evaluation.json"
            write_text(path, answer.files["out"])
            evaluation = read_model(path, Evaluation)
        evaluation.settings.eval_backend = config.eval_backend
        evaluation.rented = Rented(
            service="modal",
            gpu=gpu.asked,
            seconds=round(answer.seconds, 3),
            usd=None if cost is None else round(cost, 6),
            price="modal_price" if config.modal_price is not None else PRICES_FROM if cost is not None else None,
        )
        write_model(arguments["out"], evaluation)


def _price(config: Config, gpu: Gpu) -> float | None:
    return config.modal_price if config.modal_price is not None else gpu.usd_per_s


def _names(volume: Any) -> set[str]:
    """The hashes of the files that the Volume has."""
    import modal

    try:
        return {Path(entry.path).name for entry in volume.listdir("/files")}
    except modal.exception.NotFoundError:
        return set()


def _hashes(known: Path, files: list[Path]) -> dict[Path, str]:
    """Hashes of files' contents. ``known`` remembers them by size and mtime: gigabytes are not read for each kernel.

    Raises:
        UserError: a file is missing.
    """
    from snakernel.evaluation.remote import sha256

    try:
        before = read_json(known)
    except UserError:
        before = {}
    found, now = {}, {}
    for path in files:
        try:
            info = path.stat()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        stamp = [info.st_size, info.st_mtime_ns, info.st_ino]
        old = before.get(str(path))
        found[path] = old[1] if isinstance(old, list) and len(old) == 2 and old[0] == stamp else sha256(path)
        now[str(path)] = [stamp, found[path]]
    if now != before:
        write_json(known, now)
    return found


def _lock(name: str) -> Path:
    return Path(tempfile.gettempdir()) / f"snakernel-modal-{name}-{os.getuid()}.lock"
