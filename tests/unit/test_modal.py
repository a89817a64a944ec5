"""eval_backend modal, without an account: Modal's own functions run here, and only its network is replaced."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import MINI
from snakernel.config import config_yaml, load_config
from snakernel.errors import UserError
from snakernel.evaluation import call, modal_backend
from snakernel.evaluation.verdict import Evaluation, Reference
from snakernel.files import read_model, write_text

modal = pytest.importorskip("modal", reason="needs requirements-modal.txt")

from snakernel.evaluation import modal_app, remote  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:The .* function is executing locally")
KERNEL = next((MINI / "solutions").rglob("rmsnorm_h256_baseline_triton.json"))
TASK = "rmsnorm_rmsnorm_h256"


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Volume:
    """As much of a modal.Volume as the client uses, in a folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.puts = root, []

    def listdir(self, path: str) -> list[SimpleNamespace]:
        folder = self.root / path.lstrip("/")
        if not folder.is_dir():
            raise modal.exception.NotFoundError(path)
        return [SimpleNamespace(path=str(file.relative_to(self.root))) for file in folder.iterdir()]

    def batch_upload(self, force: bool = False) -> Volume:
        return self

    def __enter__(self) -> Volume:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def put_file(self, local: Path, path: str) -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(local, target)
        self.puts.append(Path(path).name)


class Cloud:
    """The deployed app as its network shows it: looked up by name, run by Modal's own local call."""

    def __init__(self, root: Path) -> None:
        self.volume = Volume(root / "volume")
        self.deployed: list[str] = []
        self.options: dict[str, Any] = {}
        self.requests: list[remote.Request] = []
        self.fails: Exception | None = None

    def from_name(self, app: str, name: str) -> Cloud:
        self.app, self.name = app, name
        return self

    def hydrate(self) -> None:
        if self.app not in self.deployed:
            raise modal.exception.NotFoundError(self.app)

    def deploy(self, *, name: str) -> None:
        self.deployed.append(name)

    def with_options(self, **options: Any) -> Cloud:
        self.options = options
        return self

    def remote(self, request: remote.Request) -> remote.Answer:
        if self.fails is not None:
            raise self.fails
        self.requests.append(request)
        return getattr(modal_app, self.name).local(request)


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """Modal with its network replaced, a token that is none, and Triton's interpreter for a GPU."""
    cloud = Cloud(tmp_path)
    monkeypatch.setenv("MODAL_TOKEN_ID", "ak-secret-id")
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-secret-value")
    monkeypatch.setattr(modal.Function, "from_name", cloud.from_name)
    monkeypatch.setattr(modal_app.APP, "deploy", cloud.deploy)
    monkeypatch.setattr(modal_app, "VOLUME", cloud.volume)
    monkeypatch.setattr(modal_app, "MOUNT", cloud.volume.root)
    monkeypatch.setattr(modal_app, "BACKEND", "cpu")
    monkeypatch.setattr(modal_app, "_work", lambda: tmp_path / "work")
    yield cloud
    remote._placed.clear()


class Run:
    """A task's folder on this machine, and actions on it."""

    def __init__(self, folder: Path, **keys: object) -> None:
        values = {"dataset_root": str(folder / "mini"), "eval_backend": "modal", "modal_gpu": "H100"}
        values |= {"max_workloads": 1, "num_trials": 1, "iterations": 1, "warmup_runs": 0, "save_path": str(folder)}
        values |= {"warm_idle_s": 10.0, "eval_timeout_s": 200.0, "confirm_draws": 2}
        self.folder, self.config = folder, load_config(values | keys)
        self.path, self.task, self.dataset = folder / "config.yaml", folder / TASK, folder / "mini"
        write_text(self.path, config_yaml(self.config))
        if not self.dataset.exists():
            shutil.copytree(MINI, self.dataset)
        write_text(folder / "kernel.py", json.loads(KERNEL.read_text())["sources"][0]["content"])

    def check(self) -> Run:
        names = {"op_type": "rmsnorm", "definition": "rmsnorm_h256", "out": str(self.task)}
        assert self("check_task", on_device=False, **names) == 0
        return self

    def __call__(self, action: str, *, on_device: bool = True, **arguments: str) -> int:
        return call.call_evaluator(self.config, action, {"config": str(self.path), **arguments}, on_device=on_device)

    def measure(self) -> Reference:
        assert self("measure_reference", task_folder=str(self.task)) == 0
        return read_model(self.task / "reference" / "reference.json", Reference)

    def judge(self, action: str = "evaluate", kernel: str = "kernel.py") -> Evaluation:
        out = self.folder / "evaluation.json"
        paths = {"task_folder": self.task, "kernel": self.folder / kernel, "out": out}
        assert self(action, **{name: str(path) for name, path in paths.items()}) == 0
        return read_model(out, Evaluation)


def test_the_verdict_is_the_local_one(
    tmp_path: Path, cloud: Cloud, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every action through Modal's own local call; what is compared is what the cpu backend finds here."""
    (tmp_path / "here").mkdir()
    here = Run(tmp_path / "here", eval_backend="cpu").check()
    expected, of_reference = (here.measure(), here.judge())[::-1]
    there = Run(tmp_path).check()
    reference = there.measure()
    found = there.judge()
    assert found.correct and expected.correct
    of_time = {"speedup", "speedup_geomean", "speedup_over_baseline", "latency_ms", "seconds", "started", "workloads"}
    apart = of_time | {"rented", "settings", "notes"}
    assert found.model_dump(exclude=apart) == expected.model_dump(exclude=apart)
    assert [(one.status, one.axes) for one in found.workloads] == [(one.status, one.axes) for one in expected.workloads]
    assert found.settings.eval_backend == reference.settings.eval_backend == "modal"
    assert reference.device == of_reference.device and reference.baseline == of_reference.baseline
    assert found.rented.gpu == "H100!" and found.rented.usd == pytest.approx(found.rented.seconds * 0.001097, abs=2e-6)
    assert cloud.options == {"gpu": "H100!", "scaledown_window": 60}
    assert len(cloud.deployed) == 1

    confirmed = there.judge("confirm")
    assert confirmed.correct and confirmed.settings.num_trials == 2
    kernels = {"first": str(tmp_path / "kernel.py"), "second": str(tmp_path / "kernel.py")}
    assert there("compare", task_folder=str(there.task), out=str(tmp_path / "compared.json"), **kernels) == 0
    assert json.loads((tmp_path / "compared.json").read_text())["rounds"] > 0

    # The expected outputs stay there; where nothing can hide them from a kernel, they are not kept.
    assert reference.workloads[0].stored and list((cloud.volume.root / "expected").iterdir())
    assert not list((there.task / "reference" / "expected").iterdir())
    monkeypatch.setattr(remote.landlockpy, "abi_version", lambda: 0)
    text = remote._keep(cloud.requests[0], there.task / "reference", tmp_path / "other")
    assert not json.loads(text)["workloads"][0]["stored"] and remote.NOT_KEPT in json.loads(text)["notes"]
    assert not (tmp_path / "other" / "expected").exists()

    # The reference was measured once: for the same task, on any machine, it is not measured again.
    first = reference.model_dump_json()
    shutil.rmtree(there.task / "reference")
    assert there.measure().model_dump_json() == first
    assert "measured before" in capfd.readouterr().out

    # Nobody's kernel is kept there, and no key leaves this machine.
    kept = "".join(file.read_text(errors="replace") for file in cloud.volume.root.rglob("*") if file.is_file())
    assert "@triton.jit" not in kept and not list((tmp_path / "work").rglob("solutions"))
    assert "secret" not in "".join(map(repr, cloud.requests))


def test_what_changed_is_uploaded_and_nothing_else(tmp_path: Path, cloud: Cloud) -> None:
    run = Run(tmp_path).check()

    def plan() -> tuple[remote.Request, int]:
        arguments = {"config": str(run.path), "task_folder": str(run.task)}
        request, uploads = modal_backend.plan(run.config, "measure_reference", arguments)
        return request, modal_backend.upload(cloud.volume, uploads)

    first, count = plan()
    assert count == len(first.stored) >= 2
    assert plan() == (first, 0)
    definition = run.dataset / "definitions" / "rmsnorm" / "rmsnorm_h256.json"
    definition.write_text(definition.read_text().replace('"description": "', '"description": "Edited. ', 1))
    edited, count = run.check() and plan()
    assert count == 1 and edited.key != first.key
    shutil.rmtree(cloud.volume.root)
    assert plan() == (edited, len(edited.stored))  # the Volume was deleted


def test_files_are_placed_by_their_content(tmp_path: Path) -> None:
    files, dataset = tmp_path / "files", tmp_path / "dataset"
    files.mkdir()
    for text in ("one", "two"):
        write_text(tmp_path / "text", text)
        (tmp_path / "text").rename(files / sha256_of(text))
    name = "blob/x.safetensors"
    for text in ("one", "two", "one"):
        remote.place({name: sha256_of(text)}, files, dataset)
        assert (dataset / name).read_text() == text
    (files / sha256_of("two")).write_text("twp")
    with pytest.raises(UserError, match="is damaged in the store"):
        remote.place({name: sha256_of("two")}, files, dataset)
    with pytest.raises(UserError, match="the store has no file"):
        remote.place({name: "0" * 64}, files, dataset)
    assert (dataset / name).read_text() == "one"


def test_a_fault_there_is_a_fault_here(tmp_path: Path, cloud: Cloud, capfd: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path).check()
    arguments = {"task_folder": str(run.task)}
    shutil.rmtree(cloud.volume.root, ignore_errors=True)
    cloud.volume.put_file = lambda local, path: None  # an upload that is lost
    assert run("measure_reference", **arguments) == 1
    assert "error: definitions/rmsnorm/rmsnorm_h256.json: the store has no file" in capfd.readouterr().out
    assert not (run.task / "reference" / "reference.json").exists()
    for error, told in (
        (modal.exception.AuthError("ak-secret-id is unknown"), "Modal refuses the token"),
        (modal.exception.FunctionTimeoutError("too\nlong"), "Modal failed: too long"),
    ):
        cloud.fails = error
        with pytest.raises(UserError, match=told) as raised:
            run("measure_reference", **arguments)
        assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("keys", "environment", "told"),
    [
        ({"modal_gpu": "H900"}, {}, "modal_gpu: 'H900' is no GPU type of Modal's; one of T4, L4"),
        ({}, {"MODAL_CONFIG_PATH": "/nowhere/modal.toml"}, "needs a token: run `modal setup`, which writes /nowhere"),
        ({}, {"MODAL_TOKEN_ID": "ak-secret-id"}, "set both MODAL_TOKEN_ID and MODAL_TOKEN_SECRET"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_spent(
    keys: dict[str, str], environment: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("MODAL_"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=told) as raised:
        modal_backend.check_modal(load_config({"eval_backend": "modal", **keys}))
    assert "secret-id" not in str(raised.value)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modal_backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install -r requirements-modal.txt"):
        modal_backend.check_modal(load_config({"eval_backend": "modal"}))
