"""A run as its report shows it: every step in a row, and of each task's best kernel where it came from."""

from __future__ import annotations

import difflib
import re
import statistics
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from snakernel.config import Config
from snakernel.dataset import Task
from snakernel.evaluation.verdict import Confirmation, Device, Evaluation, Reference, Status, WorkloadResult
from snakernel.files import read_model
from snakernel.history import Step
from snakernel.llm.base import Answer
from snakernel.summary import Summary, TaskSummary, steps_done, summarize

REASONS = 6
"""Reasons of failure that are told apart; the most frequent ones."""


@dataclass(frozen=True)
class StepRow:
    """One step: the question, the verdict, and what is spent and reached by then."""

    source: Step
    best_speedup: float | None
    """The best so far."""
    spent_usd: float | None
    """Cost of all steps up to this one; None from the first step of unknown price on."""
    spent_tokens: int
    """Tokens of all steps up to this one."""

    @property
    def number(self) -> int:
        """The step's number."""
        return self.source.number

    @property
    def evaluation(self) -> Evaluation:
        """The verdict."""
        return self.source.evaluation

    @property
    def answer(self) -> Answer:
        """The answer."""
        return self.source.response

    @property
    def parent(self) -> int | None:
        """The step whose kernel this one was asked to change; None where a new kernel was asked for."""
        return self.source.extraction.base or self.answer.request.question.base

    @property
    def origin(self) -> str:
        """Where the kernel came from, in words."""
        shown = [number for number in self.answer.request.question.shown if number != self.parent]
        seen = f", after seeing {', '.join(map(str, shown))}" if shown else ""
        if self.parent is None:
            return f"new{seen}"
        verb = {"edits": "edits", "unchanged": "repeats"}.get(self.source.extraction.kind, "rewrites")
        return f"{verb} step {self.parent}{seen}"

    @property
    def asked(self) -> tuple[str, str]:
        """The service that was asked, and the model that it was asked for."""
        return self.answer.api_type, self.answer.request.model

    @property
    def tokens(self) -> int:
        """Tokens of the question and the answer."""
        return self.answer.usage.input_tokens + self.answer.usage.output_tokens

    @property
    def asked_s(self) -> float:
        """Seconds from the question to the answer."""
        return moment(self.answer.ended) - moment(self.answer.started)

    @property
    def judged_s(self) -> float:
        """Seconds that the verdict took."""
        return self.evaluation.seconds.get("total", 0.0)


@dataclass(frozen=True)
class Change:
    """A step in the lineage of a best kernel."""

    row: StepRow
    diff: str
    """Unified diff to the kernel that it changed; empty for a new kernel."""


@dataclass(frozen=True)
class Best:
    """A task's best kernel."""

    row: StepRow
    confirmation: Confirmation | None
    """What fresh draws and a comparison in turns have shown; None while it is not done."""
    lineage: list[Change]
    """Newest first: the best kernel, the one that it changed, and so on to one that was written new."""

    @property
    def kernel(self) -> str:
        """Its source."""
        return self.row.source.kernel

    @property
    def prompt(self) -> str:
        """What the model was asked."""
        return self.row.answer.request.prompt

    @property
    def workloads(self) -> list[WorkloadResult]:
        """Its workloads, by the reference's latency."""
        return sorted(self.row.evaluation.workloads, key=lambda one: one.reference_ms or 0.0)

    @property
    def baseline_speedup(self) -> float | None:
        """Speedup against the dataset's baseline solution; None where there is none."""
        return self.row.evaluation.speedup_over_baseline

    @property
    def floor_share(self) -> float | None:
        """Roofline / latency, mean over workloads: 1 where no kernel can be quicker; None where it is not known."""
        ratios = [one.floor_ms / one.latency.median_ms for one in self.workloads if one.floor_ms and one.latency]
        return statistics.fmean(ratios) if ratios and len(ratios) == len(self.workloads) else None


@dataclass(frozen=True)
class Reason:
    """Why steps failed."""

    status: Status
    text: str
    """The reason in one line, numbers left out."""
    steps: list[int]


@dataclass(frozen=True)
class TaskReport:
    """One task."""

    task: Task
    summary: TaskSummary
    rows: list[StepRow]
    best: Best | None
    reasons: list[Reason]
    """The most frequent first."""
    reference: Reference | None
    """None while it is not measured."""

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name


@dataclass(frozen=True)
class ModelReport:
    """What one model has brought, by its answers that have a verdict."""

    service: str
    """Who was asked."""
    name: str
    """As it was asked for."""
    rows: list[StepRow]
    """Its answers."""
    best: int
    """Tasks whose best kernel it wrote."""

    @property
    def correct(self) -> int:
        """Answers that held a correct kernel."""
        return sum(row.evaluation.correct for row in self.rows)

    @property
    def tokens(self) -> int:
        """Tokens of all questions and answers."""
        return sum(row.tokens for row in self.rows)

    @property
    def cost_usd(self) -> float | None:
        """Price of its answers; None where one is not known."""
        costs = [row.answer.cost_usd for row in self.rows]
        return None if None in costs else sum(cost for cost in costs if cost is not None)


@dataclass(frozen=True)
class RunReport:
    """A run."""

    config: Config
    summary: Summary
    tasks: list[TaskReport]

    @property
    def rows(self) -> list[StepRow]:
        """All steps that have a verdict."""
        return [row for task in self.tasks for row in task.rows]

    @property
    def devices(self) -> list[Device]:
        """What verdicts were measured on."""
        return list({str(row.evaluation.device): row.evaluation.device for row in self.rows}.values())

    @property
    def models(self) -> list[str]:
        """The models that answered, as served."""
        return sorted({row.answer.model for row in self.rows})

    @property
    def asked(self) -> list[ModelReport]:
        """The models that were asked and what each brought, by service and name; sweeps ask nobody."""
        rows: dict[tuple[str, str], list[StepRow]] = {}
        for row in self.rows:
            if row.answer.request.question.role != "sweep":
                rows.setdefault(row.asked, []).append(row)
        bests = Counter(task.best.row.asked for task in self.tasks if task.best is not None)
        return [ModelReport(*key, rows[key], bests[key]) for key in sorted(rows)]

    @property
    def versions(self) -> dict[str, str]:
        """Versions of what decided."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            for name, version in row.evaluation.versions.items():
                if version not in found.setdefault(name, []):
                    found[name].append(version)
        return {name: ", ".join(versions) for name, versions in found.items()}

    @property
    def wall_s(self) -> float:
        """Seconds in which a model was being asked or a kernel judged; pauses of the workflow are not in it."""
        spans = [(moment(row.answer.started), row.asked_s) for row in self.rows]
        spans += [(moment(row.evaluation.started), row.judged_s) for row in self.rows]
        total, end = 0.0, 0.0
        for start, seconds in sorted(spans):
            total += max(0.0, start + seconds - max(start, end))
            end = max(end, start + seconds)
        return total


def moment(time: str) -> float:
    """Seconds since 1970 of an ISO 8601 time."""
    return datetime.fromisoformat(time).timestamp()


def read_run(config: Config, tasks: list[Task]) -> RunReport:
    """Read all that there is of a run so far."""
    summary = summarize(config, tasks)
    return RunReport(config, summary, [read_task(config, *pair) for pair in zip(tasks, summary.tasks, strict=True)])


def read_task(config: Config, task: Task, summary: TaskSummary) -> TaskReport:
    """Read one task's steps; those that were not asked are left out."""
    folder = config.results / task.name
    rows: list[StepRow] = []
    best_speedup, spent, tokens = None, 0.0, 0
    for one in steps_done(folder, summary.steps_planned):
        if one.skipped:
            continue
        if one.evaluation.speedup is not None:
            best_speedup = max(best_speedup or 0.0, one.evaluation.speedup)
        cost = one.response.cost_usd
        spent = None if spent is None or cost is None else spent + cost
        tokens += one.response.usage.input_tokens + one.response.usage.output_tokens
        rows.append(StepRow(one, best_speedup, spent, tokens))
    reference = folder / "reference" / "reference.json"
    measured = read_model(reference, Reference) if reference.exists() else None
    best = next((row for row in rows if row.number == summary.best_step), None)
    return TaskReport(
        task=task,
        summary=summary,
        rows=rows,
        best=read_best(folder, rows, best) if best is not None else None,
        reasons=why_others_failed(rows),
        reference=measured,
    )


def read_best(folder: Path, rows: list[StepRow], best: StepRow) -> Best:
    """What there is to tell of a task's best kernel."""
    by_number = {row.number: row for row in rows}
    lineage: list[Change] = []
    row: StepRow | None = best
    while row is not None:
        parent = by_number.get(row.parent) if row.parent else None
        lineage.append(Change(row, diff(parent.source.kernel, row.source.kernel) if parent else ""))
        row = parent
    confirmed = folder / "best" / "confirmation.json"
    return Best(best, read_model(confirmed, Confirmation) if confirmed.exists() else None, lineage)


def diff(before: str, after: str) -> str:
    """Unified diff of two kernels, without the file names."""
    return "\n".join(list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3))[2:])


def why_others_failed(rows: list[StepRow]) -> list[Reason]:
    """The reasons of the steps whose kernels were not correct, the most frequent first."""
    steps: dict[tuple[Status, str], list[int]] = {}
    for row in rows:
        if not row.evaluation.correct:
            steps.setdefault((row.evaluation.status, reason(row.evaluation.error)), []).append(row.number)
    counted = Counter({key: len(numbers) for key, numbers in steps.items()})
    return [Reason(*key, steps[key]) for key, _ in counted.most_common(REASONS)]


def reason(error: str) -> str:
    """An error in one line, so that two of a kind read the same: the last exception that it names, else its first line
    after the workload's; numbers become N."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("workload ")] or lines
    if not told:
        return ""
    raised = [line for line in told if re.match(r"[\w.]*(Error|Exception|Interrupt|Exit)\b", line)]
    line = (raised or told[:1])[-1]
    # Which elements are wrong differs from one kernel to the next.
    line = re.split(r"(?<=are wrong):", line)[0]
    return re.sub(r"(?<![A-Za-z_\d.])-?\d+(\.\d+)?([eE][-+]?\d+)?", "N", line)[:200]
