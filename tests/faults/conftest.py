"""What the fault tests share: a checkout that has not run, a run that was left alone, the table of what came out."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from conftest import REPOSITORY
from workflow.running import Project

from faults.harness import Tally, create, end_parents, essence, finish

TABLE = "FAULTS_TABLE"
"""Environment variable: the file whose table is written."""
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
_rows: dict[str, Tally] = {}


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A checkout whose run has not begun."""
    yield create(tmp_path_factory.mktemp("fresh") / "project")
    end_parents()


@pytest.fixture(scope="session")
def finished(fresh: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A run that was left alone."""
    project = fresh.copy(tmp_path_factory.mktemp("finished") / "project")
    code, said = finish(project)
    assert code == 0, said
    return project


@pytest.fixture(scope="session")
def whole(finished: Project) -> dict[str, Any]:
    """What it left."""
    return essence(finished)


@pytest.fixture
def record() -> Callable[[str, Tally], None]:
    """Takes what came of a fault into the table, and fails where it was not survived."""

    def take(fault: str, tally: Tally) -> None:
        _rows[fault] = tally
        tally.check()

    return take


def pytest_sessionfinish() -> None:
    """Write the table of docs/faults.md."""
    path = os.environ.get(TABLE)
    if not path or not _rows:
        return
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"{'root' if os.geteuid() == 0 else 'no root'}:",
        "",
        "| fault | tried | answers lost | asked twice | files wrong |",
        "| --- | --- | --- | --- | --- |",
    ]
    rows = [(name, one.tried, one.lost, one.doubled, one.wrong) for name, one in _rows.items()]
    rows.append(("all", *(sum(row[column] for row in rows) for column in range(1, 5))))
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    file = REPOSITORY / path
    text = file.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    file.write_text(head + BEGIN + "\n".join(lines) + "\n" + END + rest.partition(END)[2], encoding="utf-8")
