"""eval_backend modal, without an account: the real client, against a server that stands in for Modal's."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from conftest import MINI, REPOSITORY
from google.protobuf.empty_pb2 import Empty
from modal_server import ModalServer
from snakernel.config import config_yaml, load_config
from snakernel.errors import UserError
from snakernel.evaluation import call, modal_app, modal_backend, remote
from snakernel.evaluation.verdict import Evaluation, Reference
from snakernel.files import read_model, write_text

pytestmark = pytest.mark.filterwarnings("ignore:The .* function is executing locally")
KERNEL = next((MINI / "solutions").rglob("rmsnorm_h256_baseline_triton.json"))
TASK = "rmsnorm_rmsnorm_h256"


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalServer]:
    """Modal's service on the loopback. Its client is one for the whole process, and so is this."""
    server = ModalServer(
        tmp_path_factory.mktemp("volume"), lambda name, request: getattr(modal_app, name).local(request)
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MODAL_")]:
            patch.delenv(name)
        patch.setenv("MODAL_SERVER_URL", server.start())
        patch.setenv("MODAL_CONFIG_PATH", "/nowhere/modal.toml")
        patch.setenv("MODAL_TOKEN_ID", "ak-secret-id")
        patch.setenv("MODAL_TOKEN_SECRET", "as-secret-value")
        yield server
    server.close()


@pytest.fixture
def cloud(service: ModalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModalServer]:
    """The service with an empty Volume, and Triton's interpreter for a GPU."""
    service.volume = tmp_path / "volume"
    service.told.clear()
    monkeypatch.setattr(modal_app, "MOUNT", service.volume)
    monkeypatch.setattr(modal_app, "BACKEND", "cpu")
    monkeypatch.setattr(modal_app, "_work", lambda: tmp_path / "work")
    yield service
    service.refuses, service.lost = False, 0
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
    tmp_path: Path, cloud: ModalServer, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
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
    assert cloud.options[-1].resources.gpu_config.gpu_type == "H100!"
    assert cloud.options[-1].task_idle_timeout_secs == 60 and not cloud.options[-1].secret_ids
    assert len(cloud.told["AppPublish"]) == 1 and len(cloud.told["FunctionMap"]) == 2

    confirmed = there.judge("confirm")
    assert confirmed.correct and confirmed.settings.num_trials == 2
    kernels = {"first": str(tmp_path / "kernel.py"), "second": str(tmp_path / "kernel.py")}
    assert there("compare", task_folder=str(there.task), out=str(tmp_path / "compared.json"), **kernels) == 0
    assert json.loads((tmp_path / "compared.json").read_text())["rounds"] > 0

    # The expected outputs stay there; where nothing can hide them from a kernel, they are not kept.
    assert reference.workloads[0].stored and list((cloud.volume / "expected").iterdir())
    assert not list((there.task / "reference" / "expected").iterdir())
    monkeypatch.setattr(remote.landlockpy, "abi_version", lambda: 0)
    requests = [cloud.argument(one) for one in cloud.told["FunctionMap"]]
    text = remote._keep(requests[0], there.task / "reference", tmp_path / "other")
    assert not json.loads(text)["workloads"][0]["stored"] and remote.NOT_KEPT in json.loads(text)["notes"]
    assert not (tmp_path / "other" / "expected").exists()

    # The reference was measured once: for the same task, on any machine, it is not measured again.
    first = reference.model_dump_json()
    shutil.rmtree(there.task / "reference")
    assert there.measure().model_dump_json() == first
    assert "measured before" in capfd.readouterr().out

    # Nobody's kernel is kept there, and no key leaves this machine.
    kept = "".join(file.read_text(errors="replace") for file in cloud.volume.rglob("*") if file.is_file())
    assert "@triton.jit" not in kept and not list((tmp_path / "work").rglob("solutions"))
    assert "secret" not in "".join(str(one) for told in cloud.told.values() for one in told)


def test_what_changed_is_uploaded_and_nothing_else(tmp_path: Path, cloud: ModalServer) -> None:
    run = Run(tmp_path).check()

    def plan() -> tuple[remote.Request, int]:
        arguments = {"config": str(run.path), "task_folder": str(run.task)}
        request, uploads = modal_backend.plan(run.config, "measure_reference", arguments)
        return request, modal_backend.upload(modal_app.VOLUME, uploads)

    first, count = plan()
    assert count == len(first.stored) >= 2
    assert plan() == (first, 0)
    definition = run.dataset / "definitions" / "rmsnorm" / "rmsnorm_h256.json"
    definition.write_text(definition.read_text().replace('"description": "', '"description": "Edited. ', 1))
    edited, count = run.check() and plan()
    assert count == 1 and edited.key != first.key
    shutil.rmtree(cloud.volume)
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
    with pytest.raises(UserError, match="is no path inside"):
        remote.place({"../x": sha256_of("one")}, files, dataset)
    with pytest.raises(UserError, match="the store has no file"):
        remote.place({name: "0" * 64}, files, dataset)
    assert (dataset / name).read_text() == "one"


def test_a_fault_there_is_a_fault_here(
    tmp_path: Path, cloud: ModalServer, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path).check()
    arguments = {"task_folder": str(run.task)}
    shutil.rmtree(cloud.volume, ignore_errors=True)
    cloud.lost = 1  # with its machine, so that it is run again on another one
    monkeypatch.setattr(cloud, "VolumePutFiles", lambda request: Empty())  # an upload that is lost
    assert run("measure_reference", **arguments) == 1
    assert "error: definitions/rmsnorm/rmsnorm_h256.json: the store has no file" in capfd.readouterr().out
    assert not (run.task / "reference" / "reference.json").exists()
    assert len(cloud.told["FunctionRetryInputs"]) == 1 and not cloud.lost
    for error, kind, told in (
        (TimeoutError("too late"), UserError, "Modal failed: .*too late"),
        (OSError("a fault of ours"), OSError, "a fault of ours"),  # it keeps its traceback
    ):
        monkeypatch.setattr(cloud, "run", Mock(side_effect=error))
        with pytest.raises(kind, match=told):
            run("measure_reference", **arguments)
    cloud.refuses = True
    with pytest.raises(UserError, match="Modal refuses the token") as raised:
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


def test_the_app_is_what_it_should_be(cloud: ModalServer) -> None:
    """Neither a secret nor this machine's environment; kernels have no network and a Volume to read only."""
    modal_app.APP.deploy(name=modal_backend.app_name())
    functions = {one.function.function_name: one.function for one in cloud.told["FunctionCreate"]}
    assert sorted(functions) == ["judge", "measure"]
    for function in functions.values():
        assert not function.secret_ids and function.retry_policy.retries == 3
        assert [one.mount_path for one in function.volume_mounts] == ["/mnt/snakernel"]
    assert functions["judge"].block_network and functions["judge"].volume_mounts[0].read_only
    assert not functions["measure"].volume_mounts[0].read_only
    images = [one.image for one in cloud.told["ImageGetOrCreate"]]
    assert images[0].dockerfile_commands[0] == f"FROM {modal_app.BASE}"
    assert f"\nFROM {modal_app.BASE}\n" in (REPOSITORY / "Dockerfile").read_text()
    (pins,) = [file.data for image in images for file in image.context_files]
    assert pins == (REPOSITORY / "requirements.txt").read_bytes()
    files = {one.filename for mount in cloud.told["MountGetOrCreate"] for one in mount.files}
    assert {"/root/evaluator.py", "/root/snakernel/evaluation/modal_app.py"} <= files
    assert all(name.startswith("/root/") and "__pycache__" not in name for name in files)


def test_the_module_is_found_in_a_container(tmp_path: Path) -> None:
    """There it lies alone: without requirements.txt, without the dataset."""
    shutil.copytree(REPOSITORY / "scripts", tmp_path / "scripts")
    command = [
        sys.executable,
        "-c",
        "import sys; from snakernel.evaluation import modal_app; print(sys.modules.keys())",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "scripts")}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "'torch'" not in done.stdout  # the warm parent's to import
