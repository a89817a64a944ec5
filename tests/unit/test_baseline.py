"""Folders of the agent baseline, made by hand: what becomes of their kernels, and of what is odd about them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from snakernel.baseline import import_answers
from snakernel.config import Config, load_config
from snakernel.dataset import Task
from snakernel.errors import UserError
from snakernel.extraction import extract
from snakernel.files import read_model, write_text
from snakernel.llm.base import Answer
from snakernel.llm.journal import Journal

TASKS = [Task("gemm", "a"), Task("gdn", "b")]
CODE = "import torch\n\n\ndef run(x):\n    return x + {}\n"


def outputs(folder: Path, agent: str) -> Path:
    """An empty folder of the baseline's."""
    path = folder / "outputs" / f"{agent}_mini_25_20260208-121400"
    write_text(path / "config.yaml", "model_name: claude-sonnet-4-5\napi_type: claude\n")
    return path


def configure(folder: Path, source: Path, **keys: object) -> Config:
    return load_config({"test_source": "mini", "save_path": str(folder / "results"), "resume_from": str(source)} | keys)


def imported(config: Config, task: str = "gemm_a") -> list[Answer]:
    """The answers in a task's journal, in their order."""
    list(import_answers(config, TASKS))
    files = sorted((config.results / "answers" / task).glob("*.json"), key=lambda path: int(path.stem))
    assert [path.stem for path in files] == [str(number) for number in range(1, len(files) + 1)]
    return [read_model(path, Answer) for path in files]


def kernels(answers: list[Answer]) -> list[str]:
    return [extract(answer.text, None, None)[0] for answer in answers]


def test_an_iterative_folder(tmp_path: Path) -> None:
    source = outputs(tmp_path, "iterative")
    for stem, number in (("proposal_0_1", 1), ("tune_0_2", 2), ("tune_0_10", 10), ("tune_0_3", 3)):
        write_text(source / "gemm_a" / f"{stem}.py", CODE.format(number))
        write_text(source / "gemm_a" / f"{stem}_prompt.txt", f"prompt {number}")
        write_text(source / "gemm_a" / f"{stem}_metrics.json", json.dumps({"compiled": True, "speedup": number}))
    write_text(source / "gemm_a" / "global_best_kernel_25.py", CODE.format(0))
    write_text(source / "gemm_a" / "reference_src.py", "{}")
    answers = imported(configure(tmp_path, source))
    assert kernels(answers) == [CODE.format(number) for number in (1, 2, 3, 10)]
    assert [one.request.prompt for one in answers] == [f"prompt {number}" for number in (1, 2, 3, 10)]
    assert [one.raw["metrics"]["speedup"] for one in answers] == [1, 2, 3, 10]
    assert [one.request.question.role for one in answers] == ["proposer", "tuner", "tuner", "tuner"]
    assert {one.model for one in answers} == {"claude-sonnet-4-5"}
    assert {one.cost_usd for one in answers} == {0.0}


def test_an_evolve_folder(tmp_path: Path) -> None:
    """Its numbering, refinements that somebody switched on, and what the prompts showed."""
    source = outputs(tmp_path, "evolve")
    for stem in ("proposal_1", "proposal_2", "tune_2_1", "proposal_10"):
        write_text(source / "gemm_a" / f"{stem}.py", CODE.format(stem))
        write_text(source / "gemm_a" / f"{stem}.txt", f"prompt of {stem}")
    write_text(source / "gemm_a" / "proposal_10_log.json", '{"context": {"recent": [2, 7], "elite": [1]}}')
    answers = imported(configure(tmp_path, source, agent_type="evolve"))
    assert kernels(answers) == [CODE.format(stem) for stem in ("proposal_1", "proposal_2", "tune_2_1", "proposal_10")]
    assert answers[3].request.question.shown == [1, 2]
    assert answers[3].request.prompt == "prompt of proposal_10"


def test_odd_folders(tmp_path: Path) -> None:
    """Tunes without a proposal, no prompt, broken or missing metrics, code that is none, no config.yaml."""
    source = outputs(tmp_path, "iterative")
    (source / "config.yaml").unlink()
    write_text(source / "gemm_a" / "tune_0_4.py", CODE.format(4))
    write_text(source / "gemm_a" / "tune_0_5.py", "Sorry, ```this``` is no kernel")
    write_text(source / "gemm_a" / "tune_0_5_metrics.json", '{"compiled": tr')
    write_text(source / "gemm_a" / "tune_0_6.py", '"""A ```fence``` and ````another````."""\n' + CODE.format(6))
    write_text(source / "another_task" / "proposal_0_1.py", CODE.format(1))
    answers = imported(configure(tmp_path, source))
    assert [kernels(answers)[0], kernels(answers)[2]] == [
        CODE.format(4),
        '"""A ```fence``` and ````another````."""\n' + CODE.format(6),
    ]
    assert extract(answers[1].text, None, None)[1].kind == "none"
    assert answers[0].model == "unknown"
    assert ["metrics" in one.raw for one in answers] == [False, False, False]
    assert all("no readable metrics" in one.warnings[0] for one in answers)
    assert all("no prompt" in one.warnings[-1] for one in answers)


def test_what_the_journal_has_is_left_alone(tmp_path: Path) -> None:
    source = outputs(tmp_path, "iterative")
    write_text(source / "gemm_a" / "proposal_0_1.py", CODE.format(1))
    write_text(source / "gemm_a" / "tune_0_2.py", CODE.format(2))
    config = configure(tmp_path, source)
    assert len(imported(config)) == 2
    before = {path: path.read_bytes() for path in config.results.rglob("*.json")}
    assert list(import_answers(config, TASKS)) == []
    # One that was set aside is to be drawn again, not imported again.
    Journal(config.results, "gemm_a", 2).set_aside()
    write_text(source / "gemm_a" / "tune_0_3.py", CODE.format(3))
    assert len(list(import_answers(config, TASKS))) == 1
    names = sorted(path.name.split(".")[0] for path in (config.results / "answers" / "gemm_a").glob("[!.]*.json"))
    assert names == ["1", "2", "3"]
    assert not (config.results / "answers" / "gemm_a" / "2.json").exists()
    assert set(before.values()) <= {path.read_bytes() for path in config.results.rglob("*.json")}


def test_one_tasks_folder_is_enough(tmp_path: Path) -> None:
    source = outputs(tmp_path, "iterative")
    write_text(source / "gdn_b" / "proposal_0_1.py", CODE.format(1))
    answers = imported(configure(tmp_path, source / "gdn_b"), "gdn_b")
    assert [one.model for one in answers] == ["claude-sonnet-4-5"]


@pytest.mark.parametrize("what", ["missing", "empty", "own"])
def test_what_is_no_folder_of_the_baselines_is_refused(tmp_path: Path, what: str) -> None:
    source = tmp_path / "outputs"
    told = {"missing": "no such folder", "empty": "its folders are none", "own": "is a run of this workflow"}[what]
    if what != "missing":
        source.mkdir()
    if what == "own":
        (source / "answers").mkdir()
    with pytest.raises(UserError, match=f"resume_from: .*{told}"):
        list(import_answers(configure(tmp_path, source), TASKS))
