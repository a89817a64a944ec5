"""Prompts and choices of a real run do not depend on the number of cores, nor on the order in which jobs end."""

from __future__ import annotations

from pathlib import Path

import pytest
from snakernel.evaluation.verdict import Evaluation
from snakernel.files import read_model
from snakernel.search import State

from workflow.running import TASKS, Project

STEPS = 5
NAMES = ("prompt.md", "prompt.json", "kernel.py", "extraction.json", "best.json")
REFERENCE = '''"""Take the recorded measurement of the reference."""
import shutil, sys
from pathlib import Path

folder = Path(sys.argv[sys.argv.index("--task-folder") + 1])
shutil.copytree(Path("recorded", folder.name, "reference"), folder / "reference", dirs_exist_ok=True)
'''
VERDICT = '''"""Take the recorded verdict of a step, which must be on the same kernel."""
import shutil, sys
from pathlib import Path

kernel, out = (Path(sys.argv[sys.argv.index(name) + 1]) for name in ("--kernel", "--out"))
recorded = Path("recorded", *kernel.parts[-3:-1])
if kernel.read_bytes() != (recorded / "kernel.py").read_bytes():
    sys.exit(f"{kernel}: is not the kernel that was judged")
shutil.copyfile(recorded / "evaluation.json", out)
'''


def made(project: Project) -> dict[str, bytes]:
    """What a run has asked and chosen."""
    files = [f"{task}/step_{step}/{name}" for task in TASKS for step in range(1, STEPS + 1) for name in NAMES]
    files += [f"{task}/best/kernel.py" for task in TASKS]
    return {name: (project.results / name).read_bytes() for name in files}


def order(project: Project) -> list[str]:
    """The steps in the order in which their verdicts came."""
    verdicts = sorted(project.results.glob("*/step_*/evaluation.json"), key=lambda path: path.stat().st_mtime_ns)
    return ["/".join(path.parts[-3:-1]) for path in verdicts]


@pytest.mark.slow
def test_cores_and_the_order_of_jobs_do_not_show(tmp_path: Path) -> None:
    """A run on one core, and one on two that is given its verdicts: tasks and parallel steps come in turned order."""
    keys = {"parallel_proposals": 2, "total_steps": STEPS, "planner": True, "reject_duplicates": True}
    keys |= {"models": {"one": 1, "other": 1}, "model_choice": "bandit"}
    targets = [f"results/small/{task}/best/kernel.py" for task in TASKS]
    alone = Project.create(tmp_path / "alone", **keys)
    alone.snakemake("--cores", "1", *targets)
    turned = Project.create(tmp_path / "turned", **keys)
    (turned.folder / "tasks.txt").write_text("activation, silu_and_mul_h384\nrmsnorm, rmsnorm_h256\n")
    (turned.folder / "recorded").symlink_to(alone.results)
    (turned.folder / "scripts" / "measure_reference.py").write_text(REFERENCE)
    (turned.folder / "scripts" / "evaluate.py").write_text(VERDICT)
    for step in (2, 4):
        wanted = [f"results/small/{task}/step_{step}/evaluation.json" for task in reversed(TASKS)]
        turned.snakemake("--cores", "2", *wanted)
    turned.snakemake("--cores", "2", *reversed(targets))
    verdicts = [read_model(path, Evaluation) for path in turned.results.glob("*/step_*/evaluation.json")]
    assert len({one.status for one in verdicts}) >= 2
    for task in TASKS:
        state = read_model(turned.results / task / f"step_{STEPS}" / "best.json", State)
        assert state.best.correct and len(state.models) == 2
        before = order(turned).index
        assert before(f"{task}/step_2") < before(f"{task}/step_1") and before(f"{task}/step_4") < before(f"{task}/step_3")
    assert made(turned) == made(alone)
