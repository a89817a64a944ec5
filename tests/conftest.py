"""What all tests share: the import path, the repository, and the real data where it is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY.parent / "shared" / "data"
for folder in (REPOSITORY / "scripts", REPOSITORY / "tests"):
    sys.path.insert(0, str(folder))
for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(variable, None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real definitions, workloads, kernels and transcripts, which is not part of the project."""
    if not (DATA / "definitions").is_dir():
        pytest.skip(f"the real FlashInfer-Trace data is not at {DATA}")
    return DATA


@pytest.fixture(autouse=True, scope="session")
def _interpreter() -> None:
    """Triton reads this when a kernel is decorated: there is no GPU to compile for."""
    os.environ["TRITON_INTERPRET"] = "1"
