"""A step that is not asked: every script passes it through, says why, and loads nothing for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from snakernel.evaluation.verdict import Confirmation, Evaluation, Status
from snakernel.extraction import Extraction
from snakernel.files import read_model, write_model
from snakernel.history import step
from snakernel.llm.base import Prompt
from snakernel.search import Island, State
from snakernel.skipping import skip_proposal
from unit.test_prompts import TASK, add_step, folder

__all__ = ["folder"]
WHY = "the speedup of step 1 is over stop_at_speedup"
RUN = """
import runpy, sys
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(sorted({"pydantic", "yaml", "torch", "numpy", "anthropic", "openai"} & set(sys.modules)))
"""


def run(script: str, *arguments: str | Path) -> str:
    """Run a script as the rules do; what it prints, and which heavy modules it loaded."""
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY / 'scripts')!r}); sys.argv = sys.argv[1:]\n{RUN}"
    command = [sys.executable, "-c", code, REPOSITORY / "scripts" / script, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def stopped(folder: Path) -> Path:
    """A task whose search stopped with its first step."""
    attempt = add_step(folder, 1, 4.0, "def run(a, b):\n    pass\n")
    islands = [Island(best=attempt, base=1, memory=[attempt])]
    state = State(agent_type="iterative", task=TASK, step=1, best=attempt, islands=islands, stopped=WHY)
    write_model(folder / "step_1" / "best.json", state)
    return folder


def test_a_needless_step_passes_through(stopped: Path) -> None:
    before, skipped = stopped / "step_1", stopped / "step_2"
    common = ("--config", "there is none", "--task-folder", stopped)
    printed = run("propose.py", *common, "--step", "2", "--state", before / "best.json")
    printed += run("evaluate.py", *common, "--kernel", skipped / "kernel.py", "--out", skipped / "evaluation.json")
    printed += run("select_best.py", *common, "--step", "2", "--state", before / "best.json")
    assert [line for line in printed.splitlines() if line.startswith("[")] == ["[]"] * 3

    assert WHY in (skipped / "prompt.md").read_text()
    assert read_model(skipped / "prompt.json", Prompt).skip == WHY
    assert json.loads((skipped / "response.json").read_text())["skipped"] == step(stopped, 2).skipped == WHY
    assert read_model(skipped / "extraction.json", Extraction).kind == "skipped"
    assert WHY in (skipped / "kernel.py").read_text()
    evaluation = read_model(skipped / "evaluation.json", Evaluation)
    assert (evaluation.status, evaluation.compiled, evaluation.correct) == (Status.SKIPPED, False, False)
    assert WHY in evaluation.error
    was, state = (read_model(one / "best.json", State) for one in (before, skipped))
    assert state == was.model_copy(update={"step": 2, "skipped": WHY})
    assert not (stopped.parent / "answers").exists()


def test_a_step_after_a_skipped_one_is_skipped_too(stopped: Path) -> None:
    state = read_model(stopped / "step_1" / "best.json", State)
    write_model(stopped / "step_2" / "best.json", state.model_copy(update={"stopped": None, "skipped": "no money"}))
    run(
        *("propose.py", "--config", "none", "--task-folder", stopped, "--step", "3"),
        *("--state", stopped / "step_2" / "best.json"),
    )
    assert read_model(stopped / "step_3" / "prompt.json", Prompt).skip == "no money"


def test_a_task_of_which_nothing_was_asked_has_an_export(stopped: Path) -> None:
    skip_proposal(stopped / "step_1", "no money")
    (stopped / "step_1" / "evaluation.json").unlink()
    run(
        *("evaluate.py", "--config", "none", "--task-folder", stopped, "--kernel", stopped / "step_1" / "kernel.py"),
        *("--out", stopped / "step_1" / "evaluation.json"),
    )
    state = State(agent_type="iterative", task=TASK, step=1, islands=[Island()], skipped="no money")
    write_model(stopped / "step_1" / "best.json", state)
    none = Confirmation(task_id=TASK, step=None, draws=0, contenders=[], comparisons=[])
    write_model(stopped / "best" / "confirmation.json", none)
    assert "NOT CORRECT: SKIPPED" in run("export_best.py", "--task-folder", stopped, "--step", "1")
    assert read_model(stopped / "best" / "evaluation.json", Evaluation).status is Status.SKIPPED
    assert "no money" in (stopped / "best" / "kernel.py").read_text()
    assert json.loads((stopped / "best" / "solution.json").read_text())["author"] == "nobody"
