"""Looking at the processes of a run while it goes on: whether a key is where it must not be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Seen:
    """What was seen of keys."""

    processes: set[str] = field(default_factory=set)
    """Scripts that were looked at."""
    in_arguments: list[str] = field(default_factory=list)
    """Command lines that hold a key."""
    in_evaluators: list[str] = field(default_factory=list)
    """Command lines of evaluators, and of the candidates that are forked from them, that have a key in their
    environment."""


@contextmanager
def watching(folder: Path, keys: list[str]) -> Iterator[Seen]:
    """Watch the processes that have to do with a folder, and all evaluators, until the block ends."""
    seen, done = Seen(), threading.Event()
    secrets = [key.encode() for key in keys]

    def look() -> None:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_bytes()
                if str(folder).encode() not in line and b"evaluator.py" not in line:
                    continue
                environment = (process / "environ").read_bytes()
            except OSError:
                continue
            told = line.replace(b"\0", b" ").decode(errors="replace")
            seen.processes |= {Path(part).name for part in told.split() if part.endswith(".py")}
            if any(secret in line for secret in secrets):
                seen.in_arguments.append(told)
            if b"evaluator.py" in line and any(secret in environment for secret in secrets):
                seen.in_evaluators.append(told)

    def watch() -> None:
        while not done.wait(0.05):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
