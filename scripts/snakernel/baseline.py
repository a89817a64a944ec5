"""The output folders of the contest's agent baseline: read, so that a run goes on from one, and written.

``outputs/{agent}_{source}_{steps}_{time}/`` holds config.yaml and a folder a task, {op_type}_{definition}, with
reference_src.py (the definition's JSON), global_best_kernel_{steps}.py, global_best_metrics_{steps}.json, and

- iterative: proposal_0_1.py, tune_0_2.py, ..., each with _metrics.json and _prompt.txt;
- evolve: proposal_1.py, ..., each with .txt (its prompt), _metrics.json and _log.json (what the prompt showed);
  refinements of the proposal k, where it was changed to make them, are tune_{k}_{i}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from snakernel.config import Config
from snakernel.dataset import Task
from snakernel.errors import UserError
from snakernel.evaluation.verdict import Evaluation
from snakernel.files import read_text, write_text
from snakernel.history import Step, step
from snakernel.llm.base import Answer, Question, Request
from snakernel.llm.journal import Journal
from snakernel.search import create_strategy
from snakernel.search.state import Island

KEYS = (
    *("test_source", "agent_type", "tasks_path", "gpu_name", "gpu_architecture", "api_type", "model_name"),
    *("temperature", "max_completion_tokens", "total_steps", "max_memory_round", "pool_size", "softmax_temperature"),
    *("refine_steps", "eval_backend", "modal_gpu", "resume_from", "save_path"),
)
"""The keys of the baseline's config.yaml."""

_KERNEL = re.compile(r"(?P<kind>proposal|tune)_(?P<first>\d+)(?:_(?P<second>\d+))?\.py")
_SENT_TEMPERATURE = 1.0
"""What the baseline sends, whatever its configuration says."""


@dataclass(frozen=True)
class Kernel:
    """One kernel of a task's folder."""

    path: Path
    kind: str
    """proposal or tune."""
    number: tuple[int, int]
    """(0, 2) of tune_0_2.py, (3, 0) of proposal_3.py: kernels were made in this order."""

    @property
    def stem(self) -> str:
        """What the names of its files begin with."""
        return self.path.stem


def kernels(folder: Path) -> list[Kernel]:
    """The kernels of a task's folder, in the order in which they were made."""
    found = []
    for path in folder.glob("*.py"):
        match = _KERNEL.fullmatch(path.name)
        if match is not None:
            found.append(Kernel(path, match["kind"], (int(match["first"]), int(match["second"] or 0))))
    return sorted(found, key=lambda one: (one.number, one.kind))


def task_folders(config: Config, tasks: Iterable[Task]) -> dict[str, Path]:
    """The folders of tasks in ``resume_from``, which may also be that of one task.

    Raises:
        UserError: it is no folder of the baseline's, or holds none of the tasks.
    """
    folder = Path(config.resume_from or "")
    names = [task.name for task in tasks]
    if not folder.is_dir():
        if any((config.results / "answers" / name).is_dir() for name in names):
            # What it held is in the journal.
            return {}
        raise UserError(f"resume_from: {folder}: no such folder")
    if (folder / "answers").is_dir():
        raise UserError(
            f"resume_from: {folder} is a run of this workflow; to go on with it, set run and save_path to it and "
            "repeat its command"
        )
    if folder.name in names and kernels(folder):
        return {folder.name: folder}
    found = {name: folder / name for name in names if (folder / name).is_dir() and kernels(folder / name)}
    if not found:
        there = sorted(path.name for path in folder.iterdir() if path.is_dir())
        raise UserError(
            f"resume_from: {folder} has no folder of a task with kernels (proposal_*.py) in it; the tasks are "
            f"{', '.join(names)}, its folders are {', '.join(there) or 'none'}"
        )
    return found


def import_answers(config: Config, tasks: Iterable[Task]) -> Iterator[str]:
    """Put the kernels of ``resume_from`` into the journal as the answers of the first steps; yields what was done.

    A step that the journal has, or had, is left alone, so this can be repeated. Verdicts are made anew, as those of
    all kernels are; the baseline's metrics stay in the answer's ``raw``.
    """
    folders = task_folders(config, tasks)
    model = _model(Path(config.resume_from or ""))
    for name, folder in folders.items():
        found = kernels(folder)
        proposals = {one.number[0]: number for number, one in enumerate(found, 1) if one.kind == "proposal"}
        new = 0
        for number, kernel in enumerate(found, 1):
            journal = Journal(config.results, name, number)
            # Also true of an answer that was set aside: whoever draws a step again wants a new one.
            if any(journal.path.parent.glob(f"{number}.*json")):
                continue
            _, asked = journal.answer(
                lambda: Request(prompt="", model=model, max_completion_tokens=config.max_completion_tokens),
                lambda imported=_Imported(kernel, model, proposals): imported,
            )
            new += asked
        if new:
            yield f"{name}: {new} of {len(found)} kernels of {folder} are steps now"


@dataclass(frozen=True)
class _Imported:
    """Answers with a kernel of the baseline's, as a provider does."""

    kernel: Kernel
    model: str
    proposals: dict[int, int]
    """The step of each proposal, by the number that it has in the folder."""

    def ask(self, request: Request) -> Answer:
        code = read_text(self.kernel.path)
        warnings = []
        raw: dict[str, Any] = {"imported_from": str(self.kernel.path)}
        for name in (f"{self.kernel.stem}_metrics.json", f"{self.kernel.stem}_log.json"):
            path = self.kernel.path.with_name(name)
            try:
                raw[name.removeprefix(f"{self.kernel.stem}_").removesuffix(".json")] = json.loads(read_text(path))
            except (UserError, ValueError) as error:
                if name.endswith("_metrics.json"):
                    warnings.append(f"the imported run has no readable metrics of this kernel: {error}")
        prompts = [self.kernel.path.with_name(f"{self.kernel.stem}{end}") for end in ("_prompt.txt", ".txt")]
        prompt = next((read_text(path) for path in prompts if path.is_file()), None)
        if prompt is None:
            warnings.append("the imported run has no prompt of this kernel")
        when = datetime.fromtimestamp(self.kernel.path.stat().st_mtime, UTC).isoformat(timespec="milliseconds")
        context = raw["log"].get("context") if isinstance(raw.get("log"), dict) else None
        numbers = [*context.get("elite", []), *context.get("recent", [])] if isinstance(context, dict) else []
        # A fence longer than any in the code; no base, since the file is the kernel after its edits.
        fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", code)), default=0))
        return Answer(
            api_type="imported",
            request=Request(
                prompt=prompt if prompt is not None else "The imported run did not keep this prompt.\n",
                model=self.model,
                temperature=_SENT_TEMPERATURE,
                max_completion_tokens=request.max_completion_tokens,
                question=Question(
                    role="tuner" if self.kernel.kind == "tune" else "proposer",
                    shown=[self.proposals[number] for number in numbers if number in self.proposals],
                ),
            ),
            text=f"{fence}python\n{code.rstrip()}\n{fence}\n",
            model=self.model,
            stop_reason="imported",
            cost_usd=0.0,
            started=when,
            ended=when,
            warnings=warnings,
            raw=raw,
        )


def _model(source: Path) -> str:
    """The model of a folder of the baseline's: what its config.yaml says."""
    for path in (source / "config.yaml", source.parent / "config.yaml"):
        if path.is_file():
            try:
                values = yaml.safe_load(read_text(path))
            except (yaml.YAMLError, UserError):
                continue
            if isinstance(values, dict) and isinstance(values.get("model_name"), str):
                return values["model_name"]
    return "unknown"


def write_config(folder: Path, config: Config) -> None:
    """config.yaml, with the baseline's keys."""
    values = {key: getattr(config, key) for key in KEYS} | {"model_name": " or ".join(config.model_shares)}
    write_text(folder / "config.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def write_task(folder: Path, definition: dict[str, Any], steps: list[Step], best: Step, config: Config) -> None:
    """One task's folder, made of its steps.

    Args:
        folder: the task's folder.
        definition: the definition's JSON.
        steps: all steps that were asked, in their order.
        best: the one with the best kernel.
        config: the run's configuration.
    """
    strategy = create_strategy(config, folder.name)
    write_text(folder / "reference_src.py", json.dumps(definition, indent=4))
    proposals = 0
    numbers: dict[int, int] = {}
    lanes: dict[int, tuple[int, int]] = {}  # of each, its last proposal, and how many refinements that has
    for one in steps:
        lane = strategy.shape.lane(one.number)
        if strategy.tunes(one.number):
            proposal, refinement = lanes.get(lane, (proposals, 0))
            refinement += 1
        else:
            proposals += 1
            proposal, refinement = proposals, 0
        lanes[lane] = proposal, refinement
        numbers[one.number] = proposal
        prompt = "_prompt.txt"
        if config.agent_type == "iterative":
            stem = f"{'tune' if refinement else 'proposal'}_0_{one.number}"
        elif refinement:
            stem = f"tune_{proposal}_{refinement}"
        else:
            stem, prompt = f"proposal_{proposal}", ".txt"
            before = strategy.reads(one.number)
            state = step(one.folder.parent, before).state if before else strategy.start()
            island = state.islands[strategy.shape.island(one.number)]
            _write_json(folder / f"{stem}_log.json", _log(one, island, numbers))
        write_text(folder / f"{stem}.py", one.kernel)
        write_text(folder / f"{stem}{prompt}", one.response.request.prompt)
        _write_json(folder / f"{stem}_metrics.json", metrics(one.evaluation))
    write_text(folder / f"global_best_kernel_{config.total_steps}.py", best.kernel)
    _write_json(folder / f"global_best_metrics_{config.total_steps}.json", metrics(best.evaluation))


def metrics(evaluation: Evaluation) -> dict[str, Any]:
    """A verdict as the baseline's metrics: its fields, 0 for a speedup that there is not."""
    return {
        "compiled": evaluation.compiled,
        "correct": evaluation.correct,
        "speedup": evaluation.speedup or 0.0,
        "latency_ms": evaluation.latency_ms,
        "task_id": evaluation.task_id,
        "error": evaluation.error,
        "stats": evaluation.stats,
    }


def _log(one: Step, before: Island, numbers: dict[int, int]) -> dict[str, Any]:
    """proposal_{k}_log.json: what the prompt showed, and the proposal's score."""
    shown = {"recent": before.recent, "elite": before.elite}
    folder, attempt = one.folder.parent, one.attempt()
    return {
        "step": numbers[one.number],
        "step_type": "large_step",
        "context": {name: [numbers[each.step] for each in pool] for name, pool in shown.items()},
        "context_metrics": {
            name: [metrics(step(folder, each.step).evaluation) for each in pool] for name, pool in shown.items()
        },
        "context_size": {name: len(pool) for name, pool in shown.items()},
        "compiled": attempt.compiled,
        "correct": attempt.correct,
        "speedup": attempt.speedup,
        "score": list(attempt.score),
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")
