"""The configuration: the baseline's files run unchanged, and what is wrong is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from snakernel.config import config_yaml, load_config, read_config
from snakernel.errors import UserError

BASELINE = {
    "test_source": "mlsys26-contest",
    "agent_type": "iterative",
    "tasks_path": "config/tasks_contest.txt",
    "gpu_name": "B200",
    "gpu_architecture": "Blackwell",
    "api_type": "claude",
    "model_name": "claude-sonnet-4-5",
    "temperature": 0.6,
    "max_completion_tokens": 16384,
    "total_steps": 25,
    "max_memory_round": 5,
    "pool_size": 6,
    "softmax_temperature": 1.0,
    "refine_steps": 0,
    "eval_backend": "modal",
    "modal_gpu": "B200",
    "resume_from": None,
    "save_path": None,
    "level": 1,
    "problem_id": None,
    "dtype_str": "float32",
    "debug": False,
}


def test_the_baselines_keys_are_all_known() -> None:
    config = load_config(BASELINE)
    assert {key: getattr(config, key) for key in BASELINE} == BASELINE
    assert config.ignored == ["level", "dtype_str", "debug"]


def test_the_baselines_defaults() -> None:
    config = load_config({})
    expected = {"total_steps": 25, "max_memory_round": 5, "pool_size": 5, "softmax_temperature": 1.0}
    expected |= {"temperature": 0.6, "max_completion_tokens": 16384, "api_type": "openai", "model_name": "gpt-5-mini"}
    expected |= {"gpu_name": "A6000", "gpu_architecture": "Ampere", "refine_steps": 0, "eval_backend": "local"}
    assert {key: getattr(config, key) for key in expected} == expected


@pytest.mark.parametrize(("alias", "name"), [("anthropic", "claude"), ("google", "gemini"), ("openai", "openai")])
def test_api_type_aliases(alias: str, name: str) -> None:
    assert load_config({"api_type": alias}).api_type == name


def test_a_runs_name_holds_neither_a_time_nor_the_steps() -> None:
    names = {load_config({"test_source": "mini", "total_steps": steps}).run_name for steps in (1, 25)}
    assert names == {"iterative_mini"}
    assert load_config({"save_path": "outputs", "run": "r1"}).results == Path("outputs/r1")
    assert load_config({"save_path": ""}).results == Path("results/iterative_mlsys26-contest")
    assert load_config({"test_source": "x"}).dataset == Path("datasets/x")
    assert load_config({"dataset_root": "/data"}).dataset == Path("/data")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"total_step": 3}, "unknown key 'total_step' (did you mean 'total_steps'?)"),
        ({"zzz": 3}, "unknown key 'zzz'"),
        ({"total_steps": "many"}, "total_steps: Input should be a valid integer"),
        ({"total_steps": 0}, "total_steps: Input should be greater than or equal to 1 (got 0)"),
        ({"temperature": 9}, "temperature: Input should be less than or equal to 2 (got 9)"),
        ({"agent_type": "random"}, "agent_type: Input should be 'iterative', 'evolve' or 'sweep' (got 'random')"),
        ({"eval_backend": "gpu"}, "eval_backend: Input should be 'local', 'cpu' or 'modal' (got 'gpu')"),
        ({"api_type": "llama"}, "api_type: Input should be 'claude', 'openai', 'gemini' or 'replay' (got 'llama')"),
        ({"run": "a/b"}, "run: must be one folder name"),
        ({"save_path": "a {b}"}, "save_path: must be a folder without { and }"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(values: dict[str, object], told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(values, "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        load_config({"total_steps": 0, "zzz": 1, "pool_size": "x"})
    for key in ("total_steps", "zzz", "pool_size"):
        assert key in str(caught.value)


@pytest.mark.parametrize(("text", "told"), [("- a\n- b\n", "not a list"), ("a: [1\n", "not YAML")])
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=told):
        read_config(tmp_path / "c.yaml")


def test_the_resolved_configuration_reads_back() -> None:
    config = load_config(BASELINE)
    assert load_config(yaml.safe_load(config_yaml(config))) == config


@pytest.mark.parametrize("path", sorted((REPOSITORY / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_the_projects_own_files_are_right(path: Path) -> None:
    read_config(path)


def test_what_is_said_of_the_keys_is_what_the_model_says(tmp_path: Path) -> None:
    """The schema and the table of all keys, which `make config-docs` writes."""
    own = REPOSITORY / "config"
    (tmp_path / "README.md").write_text((own / "README.md").read_text().replace("| `total_steps` |", "| `steps` |"))
    command = [sys.executable, "-m", "snakernel.config", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY / "scripts", check=True)
    for name in ("config.schema.json", "README.md"):
        assert (tmp_path / name).read_text() == (own / name).read_text()
