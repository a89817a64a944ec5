"""The short form: a few kills of one run. `make test-faults` is the long one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workflow.running import Project

from faults.campaign import run_campaigns


def test_a_run_survives_kills(fresh: Project, whole: dict[str, Any], tmp_path: Path) -> None:
    kinds = ("snakemake", "everything", "evaluate.py")
    # The seed's points are one of each, of one run.
    for tally in run_campaigns(fresh, whole, tmp_path, wanted=3, seed=12, kinds=kinds).values():
        tally.check()
