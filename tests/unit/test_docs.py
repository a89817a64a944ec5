"""What the documents point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

DOCUMENTS = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md"), REPOSITORY / "config" / "README.md"])
FOLDERS = ("scripts", "tests", "docs", "config", "prompts", "rules", "benchmarks", "profiles", "datasets")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_and_paths(document: Path) -> None:
    text = document.read_text()
    links = [one for one in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in one]
    missing = [link for link in links if not (document.parent / link).exists()]
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`", text)
    # Datasets of the users' own, and results, are not part of the project.
    missing += [path for path in named if not (REPOSITORY / path).exists() and not path.startswith("datasets/mlsys26")]
    assert missing == []
