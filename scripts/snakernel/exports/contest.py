"""A submission to the contest: config.toml, solution/triton/kernel.py and the packed solution.json."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from snakernel.config import Config
from snakernel.evaluation.solution import solution_fields
from snakernel.exports import Finished, author
from snakernel.exports.trace import describe
from snakernel.extraction import ENTRY
from snakernel.files import write_text

TRACKS = {"fused_moe": ("moe_",), "sparse_attention": ("dsa_",), "gated_delta_net": ("gdn_",)}
"""The contest's tracks, and what the names of their definitions begin with."""
KERNEL = "kernel.py"


class DefinitionScore(BaseModel):
    """One definition."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    definition: str
    """The definition."""
    track: str | None
    """The contest's track; None where the definition is in none."""
    score: float | None
    """Mean over workloads of the baseline solution's latency / ours; 0 where no kernel is correct; None where the
    baseline's latency was not measured."""
    speedup: float | None
    """Mean over workloads of the reference's latency / ours, for comparison."""
    reason: str = ""
    """Why there is no score, or why it is 0."""


class Scores(BaseModel):
    """score.json: what the contest would give, by its rule."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    format_version: int = 1
    """Version of this file's format."""
    device: str
    """What it was measured on."""
    definitions: list[DefinitionScore]
    """One record a task of the run."""
    tracks: dict[str, float | None]
    """Mean over a track's definitions that the run has; None where one of them has no score."""


def write_submission(folder: Path, found: Finished, config: Config) -> Path:
    """Write the best kernel's submission into ``folder``, and pack it by flashinfer-bench's own packer.

    Returns:
        The packed solution.json.
    """
    from flashinfer_bench.agents import pack_solution_from_files
    from flashinfer_bench.data import BuildSpec

    one = found.best
    assert one is not None
    definition = found.definition
    fields = solution_fields(
        definition["name"], len(definition["inputs"]), len(definition["outputs"]), one.kernel, author(config, one), None
    )
    spec = fields["spec"] | {"entry_point": f"{KERNEL}::{ENTRY}"}
    sources = folder / "solution" / "triton"
    write_text(sources / KERNEL, one.kernel)
    solution = {"name": fields["name"], "definition": definition["name"], "author": fields["author"]}
    build = {name: spec[name] for name in ("language", "entry_point", "destination_passing_style")}
    write_text(folder / "config.toml", f"[solution]\n{_toml(solution)}\n[build]\n{_toml(build)}")
    packed = pack_solution_from_files(
        str(sources), BuildSpec.model_validate(spec), **solution, description=describe(one)
    )
    write_text(folder / "solution.json", packed.model_dump_json(indent=2) + "\n")
    return folder / "solution.json"


def scores(tasks: list[Finished]) -> Scores:
    """The contest's score of each task, and of each track."""
    records = [score(one) for one in tasks]
    tracks: dict[str, float | None] = {}
    for track in TRACKS:
        values = [record.score for record in records if record.track == track]
        if values:
            tracks[track] = None if None in values else statistics.fmean(values)
    devices = sorted({one.steps[-1].evaluation.device.name for one in tasks})
    return Scores(device=", ".join(devices), definitions=records, tracks=tracks)


def score(found: Finished) -> DefinitionScore:
    """The contest's score of a task's best kernel."""
    name = found.task.definition
    track = next((track for track, heads in TRACKS.items() if name.startswith(heads)), None)
    record = DefinitionScore(definition=name, track=track, score=None, speedup=None)
    if found.best is None:
        return record.model_copy(update={"score": 0.0, "reason": "no kernel is correct"})
    evaluation = found.best.evaluation
    value = evaluation.speedup_over_baseline
    reason = "" if value is not None else "the latency of the dataset's baseline solution was not measured"
    return record.model_copy(update={"score": value, "speedup": evaluation.speedup, "reason": reason})


def _toml(values: dict[str, object]) -> str:
    """Lines of a TOML table: texts and truth values are written as in JSON."""
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())
