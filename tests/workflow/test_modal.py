"""A whole run whose kernels are judged on Modal: a server on the loopback, and the cpu backend for its containers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY
from modal_server import ModalServer
from snakernel.evaluation import modal_app, remote
from snakernel.evaluation.verdict import Evaluation
from snakernel.files import read_model

from .running import TASKS, Project


@pytest.mark.filterwarnings("ignore:The .* function is executing locally")
def test_a_run_on_modal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ModalServer(tmp_path / "volume", lambda name, request: getattr(modal_app, name).local(request))
    monkeypatch.setattr(modal_app, "MOUNT", server.volume)
    monkeypatch.setattr(modal_app, "BACKEND", "cpu")
    monkeypatch.setattr(modal_app, "_work", lambda: tmp_path / "work")
    for name in [name for name in os.environ if name.startswith("MODAL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MODAL_CONFIG_PATH", "/nowhere/modal.toml")
    project = Project.create(tmp_path / "project", eval_backend="modal", modal_gpu="T4", total_steps=1)
    shutil.copy(REPOSITORY / "requirements.txt", project.folder)
    (project.folder / "tasks.txt").write_text("rmsnorm, rmsnorm_h256\n")
    assert "needs a token" in project.snakemake(check=False).stderr
    assert not project.results.exists()
    monkeypatch.setenv("MODAL_TOKEN_ID", "ak-secret-id")
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-secret-value")
    monkeypatch.setenv("MODAL_SERVER_URL", server.start())
    try:
        project.snakemake()
        verdict = read_model(project.results / TASKS[0] / "step_1" / "evaluation.json", Evaluation)
        assert verdict.rented and verdict.rented.gpu == "T4" and verdict.workloads
        assert len(server.told["AppPublish"]) == 1  # the jobs share one app
        assert len(server.told["VolumePutFiles"]) == 1
        asked = len(server.told["FunctionMap"])
        # Nothing is left to do, so no token is needed and nobody is asked.
        monkeypatch.delenv("MODAL_TOKEN_ID")
        project.snakemake()
        assert len(server.told["FunctionMap"]) == asked
        written = "".join(path.read_text(errors="replace") for path in project.results.rglob("*") if path.is_file())
        assert "secret" not in written
    finally:
        server.close()
        remote._placed.clear()
