"""Files that are there whole or not at all, and models that name what is wrong with them."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from snakernel.errors import UserError

if TYPE_CHECKING:  # it takes a quarter of a second, and not every job needs it
    from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound="BaseModel")


def write_text(path: Path | str, text: str, *, durable: bool = False) -> None:
    """Write ``text`` under a temporary name beside ``path``, then rename it.

    ``durable`` also waits until the file and its folder's entry are on disk (fsync): for what was paid for. What is not
    is made again where its process was killed; then what that left half is removed here.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not durable:
        _remove_abandoned(path.parent, f".{glob.escape(path.name)}.*.tmp")
    handle, temporary = _held(lambda: tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        # Closing may find that it could not be written; the other handle holds it until it has its name.
        with os.fdopen(os.dup(handle), "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.fchmod(handle, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    if durable:
        _sync_folder(path.parent)


def write_model(path: Path | str, model: BaseModel, *, durable: bool = False) -> None:
    """Write a pydantic model as indented JSON with a checksum, whole or not at all."""
    write_text(path, _sealed(model.model_dump_json(indent=2)), durable=durable)


def write_json(path: Path | str, values: dict[str, Any]) -> None:
    """Write a JSON object as :func:`write_model` does."""
    write_text(path, _sealed(json.dumps(values, indent=2, ensure_ascii=False)))


@contextmanager
def reserve(path: Path | str, size: int) -> Iterator[Callable[[BaseModel], None]]:
    """Take ``size`` bytes of disk before there is anything to write: for what is paid for before it can be written.

    Yields a function that writes a model as :func:`write_model` does, durably, into the space that was taken.

    Raises:
        UserError: the disk has not so much room, or cannot be written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; nothing was asked") from None
    try:
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            # File systems that cannot reserve are no reason to stop.
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                told = f"{path}: the disk has no {size / 2**20:.0f} MB left ({error.strerror}); nothing was asked"
                raise UserError(told) from None

        def keep(model: BaseModel) -> None:
            data = _sealed(model.model_dump_json(indent=2)).encode()
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.ftruncate(handle, len(data))
            os.fsync(handle)
            os.fchmod(handle, 0o666 & ~_umask())
            os.replace(temporary, path)
            _sync_folder(path.parent)

        yield keep
    finally:
        os.close(handle)
        Path(temporary).unlink(missing_ok=True)


def _sealed(text: str) -> str:
    """The text of an indented JSON object, with the checksum of the rest as its last line."""
    return f'{text.removesuffix("}").rstrip()},\n  "checksum": "{digest_texts([text])}"\n}}\n'


def read_text(path: Path | str) -> str:
    """The text of a file.

    Raises:
        UserError: the file is missing, unreadable or not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def read_json(path: Path | str) -> dict[str, Any]:
    """A JSON object out of a file, its fields not validated.

    Raises:
        UserError: the file is missing or holds no JSON object.
    """
    try:
        values = json.loads(_unsealed(path, read_text(path)))
    except ValueError as error:
        raise UserError(f"{path}: Invalid JSON: {error}; {remedy(path)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold a JSON object, not a {type(values).__name__}")
    return values


def read_model(path: Path | str, kind: type[Model]) -> Model:
    """Read and validate a JSON file; one that an earlier release wrote is brought to today's format first.

    Raises:
        UserError: the file is missing, cut short, not what was written (its checksum tells), of a later release's
            format, or has a field with a bad value; the file and the field are named.
    """
    from pydantic import ValidationError

    text = _unsealed(path, read_text(path))
    try:
        if "format_version" in kind.model_fields:
            text = _migrated(path, text, kind)
        return kind.model_validate_json(text)
    except ValidationError as error:
        cut = any(fault["type"] == "json_invalid" for fault in error.errors(include_url=False))
        raise UserError(f"{path}: {explain(error)}{f'; {remedy(path)}' if cut else ''}") from None


def _unsealed(path: Path | str, text: str) -> str:
    """A file's text without its checksum; a file that never had one is as it is."""
    sealed = _CHECKSUM.search(text)
    if sealed is None:
        return text
    text = text[: sealed.start()] + "\n}"
    if digest_texts([text]) != sealed[1]:
        raise UserError(f"{path}: is not what was written: it was changed or damaged since; {remedy(path)}")
    return text


def remedy(path: Path | str) -> str:
    """What to do about a file of a run that cannot be used."""
    if "answers" in Path(path).parts:
        return "put it back from a copy (the step's response.json is one), or draw the step again: scripts/redraw.py"
    return f"make it again: `snakemake --forcerun {path}`"


_CHECKSUM = re.compile(r',\n  "checksum": "(\w+)"\n}\n?$')


def migration(
    kind: type[BaseModel], version: int
) -> Callable[[Callable[[dict[str, Any]], dict[str, Any]]], Callable[[dict[str, Any]], dict[str, Any]]]:
    """Register a function that makes a file's JSON of ``version`` into that of the next version.

    Whoever changes a format so that its old files are no longer valid (a field that goes or gets another meaning)
    raises the default of the model's ``format_version``, and writes one of these beside the model. A new field with a
    default needs neither. tests/results/ holds the files of earlier releases, and the test that reads them.
    """

    def register(function: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
        _MIGRATIONS[kind, version] = function
        return function

    return register


_MIGRATIONS: dict[tuple[type[BaseModel], int], Callable[[dict[str, Any]], dict[str, Any]]] = {}


def _migrated(path: Path | str, text: str, kind: type[BaseModel]) -> str:
    """A file's text in today's format; unchanged where it is no JSON object, which validation tells better."""
    today = kind.model_fields["format_version"].default
    try:
        values = json.loads(text)
    except ValueError:
        return text
    version = values.get("format_version", today) if isinstance(values, dict) else today
    if version == today or not isinstance(version, int):
        return text
    if version > today:
        raise UserError(f"{path}: has format_version {version}, and this release reads up to {today}: use a later one")
    while version < today:
        function = _MIGRATIONS.get((kind, version))
        if function is None:
            raise UserError(f"{path}: has format_version {version}, which this release cannot read")
        values = function(values)
        version += 1
        values["format_version"] = version
    return json.dumps(values)


def explain(error: ValidationError) -> str:
    """Every fault of a validation in one line: the field, what is wrong, the value."""
    faults = []
    for fault in error.errors(include_url=False):
        field = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] in ("json_invalid", "missing"):
            value = ""
        else:
            shown = repr(fault["input"])
            value = f" (got {shown if len(shown) <= 80 else shown[:77] + '...'})"
        faults.append(f"{field}: {message}{value}" if field else message)
    return "; ".join(faults)


def build_models() -> None:
    """Build all models that were imported so far, which their first use does otherwise: once, before many forks."""
    from pydantic import BaseModel

    kinds = BaseModel.__subclasses__()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if not kind.__pydantic_complete__:
            kind.model_rebuild(raise_errors=False)


def bring_back_times(folder: Path | str) -> int:
    """Give files of the future the time it is now, and say how many there were.

    Where the clock was set back, Snakemake refuses what is made of files that are newer than it.
    """
    now = time.time()
    found = [path for path in Path(folder).rglob("*") if path.is_file() and path.stat().st_mtime > now]
    for path in found:
        os.utime(path, (now, now))
    return len(found)


def digest(*paths: Path | str) -> str:
    """A short content hash of files and of all Python files below folders: the code that a derived rule runs."""
    return digest_texts(
        part
        for path in paths
        for file in (sorted(Path(path).rglob("*.py")) if Path(path).is_dir() else [Path(path)])
        for part in (file.name, file.read_text(encoding="utf-8"))
    )


def digest_texts(texts: Iterable[str]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of texts, each ended by a zero byte."""
    sha = hashlib.sha256()
    for text in texts:
        sha.update(text.encode("utf-8") + b"\0")
    return sha.hexdigest()[:16]


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for temporary files; what others left that were killed meanwhile, forks included, is removed first."""

    def make() -> tuple[int, str]:
        path = tempfile.mkdtemp(prefix=_SCRATCH)
        return os.open(path, os.O_RDONLY), path

    _remove_abandoned(Path(tempfile.gettempdir()), f"{_SCRATCH}*")
    handle, path = _held(make)
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


_SCRATCH = "snakernel-scratch-"


def _held(make: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    """Make and open something that is nobody else's to remove as long as it is open, here or in a fork."""
    while True:
        handle, path = make()
        with suppress(OSError):  # a file system without locks: then nobody removes it
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(path):  # removed before it was held
            return handle, path
        os.close(handle)


def _remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove what this user made by :func:`_held` and no process has open any more."""
    for path in folder.glob(pattern):
        with suppress(OSError):  # gone meanwhile, another user's, or held
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(handle).st_uid != os.getuid():
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
            finally:
                os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Wait until a folder's entries are on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
