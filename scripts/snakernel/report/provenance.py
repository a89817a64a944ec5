"""Where each best kernel came from and how its verdict is checked: ro-crate-metadata.json, and a part of the report.

The file is an RO-Crate 1.1 (https://w3id.org/ro/crate/1.1), JSON-LD: each kernel is a File that a CreateAction made
with a model as its instrument, and that an AssessAction judged with the evaluator as its instrument.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from snakernel.files import digest
from snakernel.prompts import template_files
from snakernel.report.data import RunReport, TaskReport
from snakernel.report.starts import Start, read_starts, start_of


@dataclass(frozen=True)
class Provenance:
    """Of one best kernel."""

    task: str
    kernel: str
    """The kernel's file."""
    kernel_sha256: str
    definition: str
    definition_sha256: str
    """As the evaluator knows the definition: the first 16 digits."""
    workloads_sha256: str
    """Of the task's workloads.jsonl."""
    dataset: str
    dataset_sha256: str
    """Over the definitions and workloads of all the run's tasks."""
    model: str
    """As served."""
    model_asked: str
    api_type: str
    temperature: float | None
    request_id: str | None
    prompt: str
    """The prompt's file."""
    prompt_sha256: str
    templates_sha256: str
    """Of the prompt templates as they are now."""
    answer: str
    """The journal's entry."""
    cost_usd: float | None
    """Of this answer alone."""
    tokens: int
    seed: int
    device: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    timing: str
    isolation: list[str]
    judged: str
    """When, ISO 8601, UTC."""
    start: Start | None
    """The start of the workflow in which it was judged; None for runs older than starts.jsonl."""
    command: str
    """Judges the kernel again."""


def provenance(run: RunReport) -> dict[str, Provenance]:
    """Of every task that has a correct kernel."""
    starts = read_starts(run.config.results)
    templates = digest(*template_files(run.config))
    dataset = sha256(*(path for task in run.tasks for path in task_files(run, task)))
    return {task.name: of_task(run, task, starts, templates, dataset) for task in run.tasks if task.best is not None}


def of_task(run: RunReport, task: TaskReport, starts: list[Start], templates: str, dataset: str) -> Provenance:
    """Of one task."""
    assert task.best is not None
    row, folder = task.best.row, run.config.results / task.name
    answer, evaluation = row.answer, row.evaluation
    kernel = folder / "best" / "kernel.py"
    command = ["python", "scripts/evaluate.py", "--config", str(run.config.results / "config.yaml")]
    command += ["--definition", task.task.definition, "--kernel", str(kernel)]
    return Provenance(
        task=task.name,
        kernel=str(kernel),
        kernel_sha256=evaluation.kernel_sha256,
        definition=task.task.definition,
        definition_sha256=task.reference.definition_sha256 if task.reference else "",
        workloads_sha256=sha256(folder / "workloads.jsonl"),
        dataset=str(run.config.dataset),
        dataset_sha256=dataset,
        model=answer.model,
        model_asked=answer.request.model,
        api_type=answer.api_type,
        temperature=answer.request.temperature,
        request_id=answer.request_id,
        prompt=str(row.source.folder / "prompt.md"),
        prompt_sha256=hashlib.sha256(answer.request.prompt.encode()).hexdigest(),
        templates_sha256=templates,
        answer=str(run.config.results / "answers" / task.name / f"{row.number}.json"),
        cost_usd=answer.cost_usd,
        tokens=row.tokens,
        seed=evaluation.settings.seed,
        device=evaluation.device.model_dump(exclude_none=True),
        versions=evaluation.versions,
        settings=evaluation.settings.model_dump(),
        timing=evaluation.timing,
        isolation=evaluation.isolation,
        judged=evaluation.started,
        start=start_of(starts, evaluation.started),
        command=shlex.join(command),
    )


def task_files(run: RunReport, task: TaskReport) -> list[Path]:
    """What the dataset says of a task, as the run copied it."""
    folder = run.config.results / task.name
    return [path for path in (folder / "definition.json", folder / "workloads.jsonl") if path.exists()]


def sha256(*paths: Path) -> str:
    """SHA-256 of the contents of files, one after another."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()


def ro_crate(run: RunReport, found: dict[str, Provenance]) -> str:
    """ro-crate-metadata.json."""
    results = run.config.results
    graph = [
        {
            "@id": "ro-crate-metadata.json",
            "@type": "CreativeWork",
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": {"@id": "./"},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": f"GPU kernels of the run {run.config.run_name}",
            "description": f"Kernels written by {', '.join(run.models) or 'no model yet'} for definitions of "
            f"{run.config.dataset}, judged by FlashInfer-Bench under snakernel.",
            "datePublished": datetime.now(UTC).date().isoformat(),
            "license": "Not stated: the kernels are what the models answered.",
            "hasPart": [{"@id": relative(one.kernel, results)} for one in found.values()],
            "mentions": [{"@id": f"#verdict-{name}"} for name in found],
        },
        *entities(run, found),
    ]
    return json.dumps({"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}, indent=2) + "\n"


def entities(run: RunReport, found: dict[str, Provenance]) -> list[dict[str, Any]]:
    """All that the crate describes beside itself; files by their paths in the run's folder."""
    graph: list[dict[str, Any]] = [
        {
            "@id": "#dataset",
            "@type": "Dataset",
            "name": str(run.config.dataset),
            "description": "FlashInfer-Trace dataset; sha256 over the definitions and workloads of this run's tasks.",
            "sha256": next((one.dataset_sha256 for one in found.values()), ""),
        },
    ]
    graph += [
        {"@id": f"#model-{model}", "@type": "SoftwareApplication", "name": model, "description": "Model, as served."}
        for model in run.models
    ]
    versions = {str(one.start): one.start for one in found.values() if one.start is not None}
    graph += [
        {
            "@id": f"#snakernel-{start.version}-{start.scripts}",
            "@type": "SoftwareApplication",
            "name": "snakernel",
            "softwareVersion": start.version,
            "identifier": f"scripts sha256 {start.scripts}",
            "softwareRequirements": f"snakemake {start.snakemake}",
        }
        for start in {(one.version, one.scripts): one for one in versions.values()}.values()
    ]
    for name, one in found.items():
        graph += kernel_entities(name, one, run.config.results)
    return graph


def kernel_entities(name: str, one: Provenance, results: Path) -> list[dict[str, Any]]:
    """A kernel, the action that made it and the action that judged it."""
    kernel, prompt, answer = (relative(path, results) for path in (one.kernel, one.prompt, one.answer))
    verdict = f"{name}/best/evaluation.json"
    judge = {"@id": f"#snakernel-{one.start.version}-{one.start.scripts}"} if one.start else None
    asked = properties(
        f"#answer-{name}",
        {
            "model asked for": one.model_asked,
            "api_type": one.api_type,
            "temperature": one.temperature,
            "templates sha256": one.templates_sha256,
            "tokens": one.tokens,
            "cost in US dollars": one.cost_usd,
        },
    )
    judged = properties(
        f"#verdict-{name}",
        {
            "definition": one.definition,
            "definition sha256": one.definition_sha256,
            "workloads sha256": one.workloads_sha256,
            "timing": one.timing,
            "isolation": "; ".join(one.isolation),
            **{f"device {key}": value for key, value in one.device.items()},
            **{f"version of {key}": value for key, value in one.versions.items()},
            **{f"setting {key}": value for key, value in one.settings.items()},
        },
    )
    return [
        *asked,
        *judged,
        {
            "@id": kernel,
            "@type": ["File", "SoftwareSourceCode"],
            "name": f"Best kernel of {name}",
            "author": {"@id": f"#model-{one.model}"},
            "encodingFormat": "text/x-python",
            "sha256": one.kernel_sha256,
        },
        {"@id": prompt, "@type": "File", "name": f"Prompt of {name}", "sha256": one.prompt_sha256},
        {"@id": answer, "@type": "File", "name": f"Answer of {name}, as the journal keeps it"},
        {"@id": verdict, "@type": "File", "name": f"Verdict on {name}", "encodingFormat": "application/json"},
        {
            "@id": f"#answer-{name}",
            "@type": "CreateAction",
            "instrument": {"@id": f"#model-{one.model}"},
            "object": {"@id": prompt},
            "result": [{"@id": kernel}, {"@id": answer}],
            "identifier": one.request_id or "",
            "additionalProperty": [{"@id": entity["@id"]} for entity in asked],
        },
        {
            "@id": f"#verdict-{name}",
            "@type": "AssessAction",
            "object": [{"@id": kernel}, {"@id": "#dataset"}],
            "result": {"@id": verdict},
            "startTime": one.judged,
            "description": f"Repeat with: {one.command}",
            **({"instrument": judge} if judge else {}),
            "additionalProperty": [{"@id": entity["@id"]} for entity in judged],
        },
    ]


def properties(owner: str, values: dict[str, object]) -> list[dict[str, Any]]:
    """Names and values as entities of their own, since a crate is flat."""
    return [
        {"@id": f"{owner}-{name.replace(' ', '-')}", "@type": "PropertyValue", "name": name, "value": value}
        for name, value in values.items()
        if value is not None
    ]


def relative(path: str, results: Path) -> str:
    """A path inside the run's folder, which is the crate."""
    return str(Path(path).relative_to(results))
