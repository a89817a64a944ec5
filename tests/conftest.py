"""What all tests share: the import path, the repository, and the real data where it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from snakernel.evaluation.verdict import Evaluation

REPOSITORY = Path(__file__).parents[1]
MINI = REPOSITORY / "datasets" / "mini"
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


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory, _interpreter: None) -> Callable[..., Evaluation]:
    """A function from a kernel to its verdict on two workloads of rmsnorm_h256, on the CPU, in seconds."""
    os.environ["FIB_CACHE_PATH"] = str(tmp_path_factory.mktemp("fib"))
    from snakernel.config import load_config
    from snakernel.dataset import Task, check_task
    from snakernel.evaluation.judge import judge
    from snakernel.evaluation.reference import measure_reference
    from snakernel.evaluation.solution import make_solution
    from snakernel.evaluation.verdict import Settings

    keys = {"eval_backend": "cpu", "warmup_runs": 1, "iterations": 3, "timing_budget_s": 0.2, "max_workloads": 2}
    settings = Settings.of(load_config({**keys, "eval_timeout_s": 8, "memory_limit_gb": 2.0}))
    definition, workloads = check_task(Task("rmsnorm", "rmsnorm_h256"), MINI, 2)
    folder = tmp_path_factory.mktemp("reference")
    reference = measure_reference("rmsnorm_rmsnorm_h256", definition, workloads, settings, MINI, folder)

    def verdict(kernel: str, **changes: object) -> Evaluation:
        changed = settings.model_copy(update=changes)
        solution = make_solution(definition, kernel)
        return judge("rmsnorm_rmsnorm_h256", definition, workloads, lambda: solution, reference, folder, changed, MINI)

    verdict.reference = folder
    return verdict
