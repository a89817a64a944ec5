"""The short form: a few kills of one run. `make test-faults` is the long one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workflow.running import Project

from faults.campaign import run_campaigns


def test_a_run_survives_kills(fresh: Project, whole: dict[str, Any], place: Path) -> None:
    *_, tallies = run_campaigns(fresh, whole, place, wanted=3, seed=1)
    assert sum(tally.tried for tally in tallies.values()) == 3
    for tally in tallies.values():
        tally.check()
