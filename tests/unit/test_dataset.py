"""Task lists and datasets: what is read, and what is said of what cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY
from snakernel.dataset import Task, check_task, read_tasks
from snakernel.errors import UserError

MINI = REPOSITORY / "datasets" / "mini"
DECODE = Task("gqa_paged", "gqa_paged_decode_h8_kv2_d64_ps16")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A copy of the mini dataset to break."""
    shutil.copytree(MINI, tmp_path / "mini", ignore=shutil.ignore_patterns("answers"))
    return tmp_path / "mini"


def tasks(tmp_path: Path, text: str, dataset: Path = MINI) -> list[str]:
    """The names that a task list gives."""
    (tmp_path / "tasks.txt").write_text(text)
    return [task.name for task in read_tasks(tmp_path / "tasks.txt", dataset)]


def test_a_task_list(tmp_path: Path) -> None:
    text = "\n# all\ngemm\n  rmsnorm , rmsnorm_h256 ,fused_add_rmsnorm_h512 # 2\n\nactivation silu_and_mul_h384\n"
    assert tasks(tmp_path, text) == [
        "gemm_gemm_n128_k256",
        "rmsnorm_rmsnorm_h256",
        "rmsnorm_fused_add_rmsnorm_h512",
        "activation_silu_and_mul_h384",
    ]


def test_an_op_type_alone_is_all_its_definitions_and_a_task_is_there_once(tmp_path: Path) -> None:
    assert tasks(tmp_path, "rmsnorm\nrmsnorm, rmsnorm_h256\n") == [
        "rmsnorm_fused_add_rmsnorm_h512",
        "rmsnorm_rmsnorm_h256",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gem\n", "line 1: unknown op type 'gem'; did you mean 'gemm'?"),
        ("\nzzz\n", "line 2: unknown op type 'zzz'; there are: activation, gemm, gqa_paged, rmsnorm"),
        ("rmsnorm, rmsnorm_h265\n", "op type 'rmsnorm' has no definition 'rmsnorm_h265'; did you mean 'rmsnorm_h256'?"),
        ("# nothing\n", "names no task"),
    ],
)
def test_a_bad_task_list(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        tasks(tmp_path, text)
    assert told in str(caught.value)


def test_no_dataset_and_no_list(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no FlashInfer-Trace dataset there"):
        tasks(tmp_path, "gemm\n", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"tasks\.txt: no such file"):
        read_tasks(tmp_path / "no" / "tasks.txt", MINI)


def test_a_good_task() -> None:
    definition, workloads = check_task(DECODE, MINI)
    assert definition.name == DECODE.definition
    assert len(workloads) == 5
    assert len(check_task(DECODE, MINI, 2)[1]) == 2


def cut(path: Path) -> None:
    path.write_text(path.read_text()[: path.stat().st_size // 2])


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


@pytest.mark.parametrize(
    ("part", "damage", "told"),
    [
        ("definition", cut, "Invalid JSON"),
        ("definition", Path.unlink, "no such file"),
        ("definition", pointer, "git lfs pull"),
        ("definition", lambda path: change(path, outputs={}, inputs=3), "inputs: Input should be an object"),
        ("definition", lambda path: change(path, name="another"), "holds definition 'another'"),
        ("definition", lambda path: change(path, reference="def f(): pass"), "function named 'run'"),
        ("workloads", cut, "Invalid JSON"),
        ("workloads", Path.unlink, "no such file"),
        ("workloads", lambda path: path.write_text("\n"), "holds no workload"),
        ("workloads", pointer, "git lfs pull"),
        (
            "workloads",
            lambda path: path.write_text(path.read_text().replace('"batch_size"', '"batch"')),
            "'batch_size'",
        ),
        (
            "workloads",
            lambda path: path.write_text(path.read_text().replace("h8_kv2", "h9_kv2", 1)),
            "is a workload of",
        ),
        ("blob", Path.unlink, "which is not there"),
        ("blob", pointer, "is a Git LFS pointer, not the file itself; run `git lfs pull`"),
    ],
)
def test_a_bad_file_is_named(dataset: Path, part: str, damage, told: str) -> None:
    path = {
        "definition": DECODE.definition_path(dataset),
        "workloads": DECODE.workloads_path(dataset),
        "blob": sorted((dataset / "blob").rglob("*.safetensors"))[0],
    }[part]
    damage(path)
    with pytest.raises(UserError) as caught:
        check_task(DECODE, dataset)
    assert told in str(caught.value)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_real_definitions(real_data: Path) -> None:
    """All 11 real definitions and their 158 workloads load."""
    found = [
        check_task(Task(path.parent.name, path.stem), real_data)
        for path in sorted(real_data.glob("definitions/*/*.json"))
    ]
    assert len(found) == 11
    assert sum(len(workloads) for _, workloads in found) == 158
