"""Write tests/results/{format}/: what a run of this release leaves, for later releases to read.

    python tests/results/make.py FORMAT

Run it when a release is made, with the next number; what is there is never written again.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "scripts")]

from conftest import REPOSITORY  # noqa: E402
from workflow.running import Project  # noqa: E402

TASK = "rmsnorm_rmsnorm_h256"


def main() -> None:
    out = HERE / sys.argv[1]
    if out.exists():
        sys.exit(f"{out} is there already")
    for agent in ("iterative", "evolve"):
        with tempfile.TemporaryDirectory() as scratch:
            keys = {"agent_type": agent, "run": agent, "dataset_root": "datasets/mini", "total_steps": 2}
            project = Project.create(Path(scratch) / "project", **keys)
            (project.folder / "datasets").symlink_to(REPOSITORY / "datasets")
            (project.folder / "tasks.txt").write_text("rmsnorm, rmsnorm_h256\n")
            project.snakemake()
            left_out = shutil.ignore_patterns("logs", "expected", ".*")
            shutil.copytree(project.folder / "results" / agent, out / agent, ignore=left_out)


if __name__ == "__main__":
    main()
