"""What the fault tests share: a checkout that has not run, a run that was left alone, the table of what came out."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from workflow.running import Project

from faults.harness import SCRATCH, Tally, create, end_parents, essence, finish

TABLE = "FAULTS_TABLE"
"""Environment variable: the file whose table is written."""
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A checkout whose run has not begun."""
    yield create(tmp_path_factory.mktemp("fresh") / "project")
    end_parents()
    shutil.rmtree(SCRATCH, ignore_errors=True)


@pytest.fixture(scope="session")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place") / "project"


@pytest.fixture(scope="session")
def finished(fresh: Project, _place: Path) -> Project:
    """A run that was left alone."""
    project = fresh.copy(_place)
    code, said = finish(project)
    assert code == 0, said
    return Project(_place.rename(_place.with_name("finished")))


@pytest.fixture(scope="session")
def whole(finished: Project) -> dict[str, Any]:
    """What it left."""
    return essence(finished)


@pytest.fixture
def place(_place: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Where the disturbed runs are, one after another, so that one warm parent serves them all."""
    yield _place
    if _place.exists():
        _place.rename(_place.with_name(f"left_by_{request.node.name}"))


@pytest.fixture
def record() -> Callable[[str, Tally], None]:
    """Takes what came of a fault into the table, and fails where it was not survived."""

    def take(fault: str, tally: Tally) -> None:
        write_row(fault, tally)
        tally.check()

    return take


def _code() -> str:
    """Git's name of the scripts/ that are tried: `git rev-parse --short HEAD:scripts`."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()

    changed = " changed" if git("status", "--porcelain", "--", "scripts") else ""
    return f"{git('rev-parse', '--short=10', 'HEAD:scripts')}{changed}"


_CODE = _code() if os.environ.get(TABLE) else ""
"""As it was when the tests began."""


def write_row(fault: str, tally: Tally) -> None:
    """Write a fault's row of docs/faults.md; rows of faults that were tried on other days, or other code, stay."""
    path = os.environ.get(TABLE)
    if not path:
        return
    file = REPOSITORY / path
    head, _, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    old, _, rest = rest.partition(END)
    rows = {line.split(" | ")[0]: line for line in old.splitlines()[2:]}
    root = "root" if os.geteuid() == 0 else "no root"
    where = f"{datetime.now(UTC):%Y-%m-%d}, scripts {_CODE}, Python {platform.python_version()}, "
    where += f"{os.cpu_count()} cores, {root}"
    values = (fault, tally.tried, tally.lost, tally.doubled, tally.wrong, where)
    rows[f"| {fault}"] = f"| {' | '.join(map(str, values))} |"
    lines = [
        "| fault | tried | answers lost | asked twice | files wrong | when and where |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows.values(),
    ]
    file.write_text(head + BEGIN + "\n".join(lines) + "\n" + END + rest, encoding="utf-8")
