"""Prompts and choices of a real run do not depend on the number of cores, nor on the order in which jobs end."""

from __future__ import annotations

from pathlib import Path

import pytest
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


def age(project: Project, name: str) -> int:
    """When a file of a run was written."""
    return (project.results / name).stat().st_mtime_ns


@pytest.mark.slow
def test_cores_and_the_order_of_jobs_do_not_show(tmp_path: Path) -> None:
    """A run on one core, and one on two that is given its verdicts and turns the order of tasks and parallel steps."""
    keys = {"parallel_proposals": 2, "total_steps": STEPS, "planner": True, "reject_duplicates": True}
    keys |= {"models": {"one": 1, "other": 1}, "model_choice": "bandit"}
    alone = Project.create(tmp_path / "alone", **keys)
    turned = Project.create(tmp_path / "turned", **keys)

    def run(project: Project, cores: int, name: str) -> None:
        project.snakemake("--cores", str(cores), *(f"results/small/{task}/{name}" for task in TASKS))

    # Steps 1 and 2, and 3 and 4, start from the same states. Here the prompt of step 4 is written before step 3 is
    # answered, there after step 3 is judged and selected; and step 2 is judged before step 1 is.
    run(alone, 1, "step_1/evaluation.json")
    run(alone, 1, "step_4/prompt.md")
    run(alone, 1, "best/kernel.py")
    (turned.folder / "tasks.txt").write_text("activation, silu_and_mul_h384\nrmsnorm, rmsnorm_h256\n")
    (turned.folder / "recorded").symlink_to(alone.results)
    (turned.folder / "scripts" / "measure_reference.py").write_text(REFERENCE)
    (turned.folder / "scripts" / "evaluate.py").write_text(VERDICT)
    run(turned, 2, "step_2/evaluation.json")
    run(turned, 2, "step_3/best.json")
    run(turned, 2, "best/kernel.py")
    for task in TASKS:
        for project, early, late in ((alone, 1, 2), (turned, 2, 1)):
            first, second = (f"{task}/step_{step}/evaluation.json" for step in (early, late))
            assert age(project, first) < age(project, second)
        asked, state = f"{task}/step_4/prompt.md", f"{task}/step_3/best.json"
        assert age(alone, asked) < age(alone, state) and age(turned, state) < age(turned, asked)
        last = read_model(turned.results / task / f"step_{STEPS}" / "best.json", State)
        assert last.best.correct and len(last.models) == 2
    assert made(turned) == made(alone)
