"""Requests and tokens a minute, and requests in flight, over all processes of this user on this machine.

Processes that ask the same service share one SQLite file, and one file lock for each request that
may be in flight: the kernel drops the locks of a process that is killed. No library holds all three bounds at once;
the one that comes nearest, pyrate-limiter, has none of requests in flight and stores a row for each token.
"""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from snakernel.config import Config
from snakernel.errors import UserError

FOLDER = "SNAKERNEL_LOCKS"
"""Environment variable: where the files are; default the system's folder for temporary files."""

ARRIVES_S = 2.0
"""Seconds that a request may take to the service, which counts it when it arrives: the window is so much longer here,
or one that was slow would share its window there with one too many."""

POLL_S = 0.05
"""Seconds between two looks at whether a request in flight has ended."""


class Limits:
    """Bounds that processes share.

    Args:
        name: what is bounded: processes that give the same name share the bounds.
        requests: requests that may be sent in any window.
        tokens: tokens of the same; a request that has more of them alone is sent when the window is empty.
        in_flight: requests that may be waited for at once.
        window_s: the window, in seconds.
        folder: where the files are.
        sleep: waits.
    """

    def __init__(
        self,
        name: str,
        *,
        requests: int | None = None,
        tokens: int | None = None,
        in_flight: int | None = None,
        window_s: float = 60.0,
        folder: Path | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ):
        self.requests, self.tokens, self.in_flight = requests, tokens, in_flight
        self.window_s = window_s + ARRIVES_S
        self._path = (folder or own_folder()) / re.sub(r"[^\w.-]+", "_", name)
        self._sleep = sleep
        self._slot: FileLock | None = None
        self._row: int | None = None

    def take(self, tokens: int) -> None:
        """Wait until one more request with so many tokens may be sent, and count it."""
        if self.in_flight is not None:
            self._take_slot(self.in_flight)
        if self.requests is not None or self.tokens is not None:
            while wait_s := self._count(tokens):
                self._sleep(wait_s)

    def done(self, tokens: int | None = None) -> None:
        """The request has ended; ``tokens`` is what it really had, where that is known."""
        if self._row is not None and tokens is not None:
            with closing(self._connect()) as database, database:
                database.execute("UPDATE sent SET tokens = ? WHERE id = ?", (tokens, self._row))
        self._row = None
        if self._slot is not None:
            self._slot.release()
            self._slot = None

    def _take_slot(self, slots: int) -> None:
        while True:
            for number in range(slots):
                lock = FileLock(f"{self._path}.{number}.lock")
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    continue
                self._slot = lock
                return
            self._sleep(POLL_S)

    def _count(self, tokens: int) -> float:
        """Count one more request; 0, or the seconds after which it may be tried again."""
        with closing(self._connect()) as database:
            database.execute("BEGIN IMMEDIATE")
            now = time.time()
            # A clock that was set back must not stop everything.
            database.execute("DELETE FROM sent WHERE at <= ? OR at > ?", (now - self.window_s, now + self.window_s))
            rows = database.execute("SELECT at, tokens FROM sent ORDER BY at").fetchall()
            free_at = now
            if self.requests is not None and len(rows) >= self.requests:
                free_at = rows[len(rows) - self.requests][0] + self.window_s
            if self.tokens is not None:
                sum_of_tokens = sum(count for _, count in rows)
                for at, count in rows:
                    if sum_of_tokens + tokens <= self.tokens:
                        break
                    sum_of_tokens -= count
                    free_at = max(free_at, at + self.window_s)
            if free_at <= now:
                self._row = database.execute("INSERT INTO sent (at, tokens) VALUES (?, ?)", (now, tokens)).lastrowid
            database.commit()
        return 0.0 if free_at <= now else max(free_at - now, 0.001)

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(f"{self._path}.sqlite", timeout=60.0, isolation_level=None)
        database.execute("CREATE TABLE IF NOT EXISTS sent (id INTEGER PRIMARY KEY, at REAL, tokens INTEGER)")
        return database


def create_limits(config: Config, base_url: str) -> Limits | None:
    """The bounds that a configuration sets; None where it sets none."""
    bounds = {
        "requests": config.requests_per_minute,
        "tokens": config.tokens_per_minute,
        "in_flight": config.requests_in_flight,
    }
    if all(bound is None for bound in bounds.values()):
        return None
    host = urlsplit(base_url).netloc.rpartition("@")[2]
    return Limits(host, **bounds)


def own_folder() -> Path:
    """A folder of this user's own for what processes on this machine share.

    Raises:
        UserError: there is one, but it is another's.
    """
    folder = Path(os.environ.get(FOLDER) or tempfile.gettempdir()) / f"snakernel-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder}: belongs to another user; set {FOLDER} to a folder of yours")
    return folder
