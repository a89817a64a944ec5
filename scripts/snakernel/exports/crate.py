"""An RO-Crate of a run: what ran, on what, what came out and who wrote it, in one ZIP file.

It follows the Workflow Run Crate profile: the workflow is the main entity, the run a CreateAction. Unpacked, its
``run/`` is a results folder that goes on where the run stopped. What it says of each best kernel is what the run's
own ro-crate-metadata.json says.
"""

from __future__ import annotations

import mimetypes
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rocrate.model.computationalworkflow import ComputationalWorkflow
from rocrate.model.contextentity import ContextEntity
from rocrate.model.softwareapplication import SoftwareApplication
from rocrate.rocrate import ROCrate

from snakernel.config import Config
from snakernel.exports import Finished
from snakernel.exports.trace import describe
from snakernel.report.data import RunReport
from snakernel.report.provenance import entities as describe_run
from snakernel.report.provenance import provenance

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
LICENSE = "https://spdx.org/licenses/Apache-2.0"
WORKFLOW = ("rules", "scripts", "prompts", "environment.yml", "requirements.txt", "LICENSE", "README.md")
"""What belongs to the workflow, beside its Snakefile."""
LEFT_OUT = ("expected", "logs", "exports")
"""Folders of a run that are not packed: what can be made again, and what says where things lay."""


def write_crate(out: Path, config: Config, tasks: list[Finished], run: RunReport, repository: Path) -> int:
    """Write the crate of a run; returns the number of its files.

    Args:
        out: the ZIP file.
        config: the run's configuration.
        tasks: the tasks that are done: their best kernels are the run's results.
        run: the same run as its report reads it.
        repository: the workflow's own folder.
    """
    crate = ROCrate(version="1.1")
    crate.name = f"snakernel run {config.run_name}"
    crate.description = (
        f"Language models wrote GPU kernels for {len(tasks)} definitions of {config.test_source}, "
        f"and every kernel was judged on {', '.join(_devices(tasks)) or 'nothing yet'}."
    )
    crate.license = "Of the workflow: Apache-2.0. Of the dataset and of what models wrote: as their owners say."
    crate.root_dataset["conformsTo"] = [
        crate.add(ContextEntity(crate, url, {"@type": "CreativeWork", "name": name})) for url, name in PROFILES.items()
    ]
    workflow = crate.add_workflow(
        repository / "Snakefile", "workflow/Snakefile", main=True, lang="snakemake", cls=ComputationalWorkflow
    )
    workflow["name"] = "snakernel"
    workflow["license"] = crate.add(ContextEntity(crate, LICENSE, {"@type": "CreativeWork", "name": "Apache-2.0"}))
    for path in _workflow_files(repository):
        crate.add_file(path, f"workflow/{path.relative_to(repository)}")
    files = {path.relative_to(config.results): path for path in _run_files(config.results)}
    entities = {name: crate.add_file(path, f"run/{name}", properties=_format(path)) for name, path in files.items()}
    made_by = [
        crate.add(SoftwareApplication(crate, f"#{name}", {"name": name, "version": version(name)}))
        for name in ("snakemake", "flashinfer-bench")
    ]
    results = [entities[name] for name in map(Path, ("summary.csv", "summary.json")) if name in entities]
    starts, ends = [], []
    for found in tasks:
        starts.append(found.steps[0].response.started)
        ends.append(found.steps[-1].evaluation.started)
        kernel = entities.get(Path(found.task.name) / "best" / "kernel.py")
        if found.best is None or kernel is None:
            continue
        kernel["description"] = describe(found.best)
        results.append(kernel)
    inputs = [entity for name, entity in entities.items() if name.name in ("config.yaml", "definition.json")]
    action = crate.add_action(
        workflow,
        object=inputs,
        result=results,
        properties={"name": crate.name, "startTime": min(starts, default=None), "endTime": max(ends, default=None)},
    )
    action["agent"] = made_by
    for described in describe_run(run, provenance(run)):
        one = crate.add_or_update_jsonld(_below_run(described))
        if str(described["@type"]).endswith("Action"):
            crate.root_dataset.append_to("mentions", one)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Written beside its name, then renamed: whole or not at all.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        whole = Path(folder) / "crate.zip"
        crate.write_zip(whole)
        whole.replace(out)
    return len(entities)


def _workflow_files(repository: Path) -> Iterator[Path]:
    for name in WORKFLOW:
        path = repository / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                yield file


def _run_files(results: Path) -> Iterator[Path]:
    """A run's files, journal included. A step's response.json repeats its entry in the journal."""
    for path in sorted(results.rglob("*")):
        parts = path.relative_to(results).parts
        if not path.is_file() or path.name.startswith(".") or path.name == "response.json":
            continue
        if not set(parts[:-1]) & set(LEFT_OUT):
            yield path


def _below_run(value: Any) -> Any:
    """An entity of the run's own crate, with its files where this crate has them."""
    if isinstance(value, list):
        return [_below_run(one) for one in value]
    if not isinstance(value, dict):
        return value
    name = value["@id"]
    return {key: _below_run(one) for key, one in value.items()} | {"@id": name if name[0] == "#" else f"run/{name}"}


def _devices(tasks: list[Finished]) -> list[str]:
    return sorted({one.steps[-1].evaluation.device.name for one in tasks})


def _format(path: Path) -> dict[str, str]:
    return {"encodingFormat": mimetypes.guess_type(path.name)[0] or "text/plain"}
