"""starts.jsonl: each start of a run, with the version of the workflow that gave the verdicts after it."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from snakernel.files import digest, read_text

REPOSITORY = Path(__file__).parents[3]


class Start(BaseModel):
    """One start of the workflow: a line of starts.jsonl."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    time: str
    """When, ISO 8601, UTC."""
    version: str
    """The workflow's version: what git calls the checkout; "unversioned" where git does not know it."""
    scripts: str
    """Content hash of scripts/, which holds whatever git says."""
    snakemake: str
    """Snakemake's version."""
    command: list[str]
    """The command line, without the program."""


def record_start(results: Path, snakemake: str, command: list[str]) -> None:
    """Add a line to a run's starts.jsonl."""
    start = Start(
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        version=workflow_version(),
        scripts=digest(REPOSITORY / "scripts"),
        snakemake=snakemake,
        command=command,
    )
    results.mkdir(parents=True, exist_ok=True)
    with (results / "starts.jsonl").open("a", encoding="utf-8") as file:
        file.write(start.model_dump_json() + "\n")


def read_starts(results: Path) -> list[Start]:
    """A run's starts, oldest first; a line that was cut by a full disk is left out."""
    path = results / "starts.jsonl"
    starts = []
    for line in read_text(path).splitlines() if path.exists() else []:
        try:
            starts.append(Start.model_validate(json.loads(line)))
        except ValueError:
            continue
    return starts


def start_of(starts: list[Start], time: str) -> Start | None:
    """The start that was in force at a time: the last one before it."""
    moment = datetime.fromisoformat(time)
    before = [one for one in starts if datetime.fromisoformat(one.time) <= moment]
    return before[-1] if before else None


def workflow_version() -> str:
    """What git calls this checkout: the last tag, commits since, the commit, and whether files are changed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), "describe", "--tags", "--always", "--dirty", "--long"],
            capture_output=True,
            text=True,
            timeout=10,
        )
        top = subprocess.run(
            ["git", "-C", str(REPOSITORY), "rev-parse", "--show-toplevel"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unversioned"
    # A copy of the project inside another repository would be given that one's commit.
    if done.returncode or Path(top.stdout.strip()) != REPOSITORY.resolve():
        return "unversioned"
    return done.stdout.strip()
