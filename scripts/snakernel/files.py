"""Files that are there whole or not at all, and models that name what is wrong with them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from snakernel.errors import UserError

if TYPE_CHECKING:  # it takes a quarter of a second, and not every job needs it
    from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound="BaseModel")


def write_text(path: Path | str, text: str, *, durable: bool = False) -> None:
    """Write ``text`` under a temporary name beside ``path``, then rename it.

    ``durable`` also waits until the file and its folder's entry are on disk (fsync): for what was paid for.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_model(path: Path | str, model: BaseModel, *, durable: bool = False) -> None:
    """Write a pydantic model as indented JSON, whole or not at all."""
    write_text(path, model.model_dump_json(indent=2) + "\n", durable=durable)


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
        values = json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path}: Invalid JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold a JSON object, not a {type(values).__name__}")
    return values


def read_model(path: Path | str, kind: type[Model]) -> Model:
    """Read and validate a JSON file.

    Raises:
        UserError: the file is missing, cut short or has a field with a bad value; the file and the field are named.
    """
    from pydantic import ValidationError

    try:
        return kind.model_validate_json(read_text(path))
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from None


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
