"""What compare_steps tells of two kernels that the evaluator timed in turns."""

from __future__ import annotations

import json
from pathlib import Path

import compare_steps
import pytest
from snakernel.config import config_yaml, load_config
from snakernel.errors import UserError
from snakernel.evaluation.verdict import Confirmation
from snakernel.files import write_model, write_text

TIMED = {"ratio": 0.8, "low": 0.78, "high": 0.82, "rounds": 8}


def run_of(folder: Path, **ended: int | None) -> Path:
    """A run whose tasks ended with these steps."""
    write_text(folder / "config.yaml", config_yaml(load_config({})))
    for task, step in ended.items():
        found = Confirmation(task_id=task, step=step, draws=0, contenders=[], comparisons=[])
        write_model(folder / task / "best" / "confirmation.json", found)
    return folder


@pytest.mark.parametrize(
    ("ended", "told", "line"),
    [
        (7, TIMED, "task: step 7 takes 0.8000 (0.7800 to 0.8200) of the time of step 1, 8 rounds in turns"),
        (7, {"failed": 1, "error": "it crashed"}, "task: step 7 failed: it crashed"),
        (7, {"failed": 0, "error": "it crashed"}, "task: step 1 failed: it crashed"),
        (1, None, "task: it ended with step 1 itself"),
        (None, None, "task: no correct kernel"),
    ],
)
def test_what_is_told(tmp_path: Path, monkeypatch, capsys, ended: int | None, told: dict | None, line: str) -> None:
    run = run_of(tmp_path / "run", task=ended)
    asked = []

    def evaluator(config, action: str, paths: dict[str, str]) -> int:
        asked.append((action, paths["first"], paths["second"]))
        Path(paths["out"]).write_text(json.dumps(told))
        return 0

    monkeypatch.setattr(compare_steps, "call_evaluator", evaluator)
    monkeypatch.setattr("sys.argv", ["compare_steps", "--run", str(run)])
    compare_steps.main()
    assert capsys.readouterr().out.strip() == line
    kernels = [str(run / "task" / f"step_{step}" / "kernel.py") for step in (1, 7)]
    assert asked == ([("compare", *kernels)] if told else [])


def test_a_run_without_a_finished_task(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["compare_steps", "--run", str(run_of(tmp_path / "run"))])
    with pytest.raises(UserError, match="holds no finished task"):
        compare_steps.main()
