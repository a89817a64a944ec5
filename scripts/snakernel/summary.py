"""A run in one table: summary.json, summary.csv and what the terminal shows at its end."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from snakernel.config import Config
from snakernel.dataset import Task
from snakernel.errors import UserError
from snakernel.evaluation.verdict import Confirmation, Status
from snakernel.files import read_model
from snakernel.history import Step, step
from snakernel.llm.journal import kept_answers, lost_requests
from snakernel.search import State, create_strategy

STAGES = {
    "propose": "kernel.py",
    "evaluate": "evaluation.json",
    "select_best": "best.json",
}
"""The rules of a step, in their order, and what each makes: their logs tell where a task stopped."""


ENDS = {"confirm_best": "confirmation.json", "export_best": "evaluation.json"}
"""The rules at a task's end, and what each makes in best/."""


class Model(BaseModel):
    """A field that is not known is an error."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class TaskSummary(Model):
    """One task of a run."""

    task: str
    """The task."""
    status: str
    """done; stopped, where the search ended before its last step; failed, where a job did; unfinished otherwise."""
    steps: int
    """Steps that have a verdict."""
    skipped: int
    """Steps that were not asked, because the search stopped before them or the budget was spent."""
    steps_planned: int
    """Steps that the configuration asks for."""
    compiled: int
    """Steps whose kernel compiled."""
    correct: int
    """Steps whose kernel was correct."""
    best_step: int | None
    """The step of the best kernel; None while none is correct."""
    best_speedup: float | None
    """Its speedup: arithmetic mean over workloads of reference latency / latency."""
    best_speedup_geomean: float | None
    """The geometric mean."""
    best_latency_ms: float | None
    """Its latency in milliseconds: arithmetic mean over workloads."""
    input_tokens: int
    """Tokens of all questions, of answers that were set aside too."""
    output_tokens: int
    """Tokens of all answers."""
    cost_usd: float | None
    """Price of all answers in US dollars; None where one of them has no known price."""
    lost_requests: int
    """Requests that may have been paid for and brought no answer: a stream was cut, a process was killed."""
    lost_usd: float
    """The most that those can have cost, in US dollars, as far as prices are known; it is not in cost_usd."""
    device: str
    """What the figures were measured on."""
    verdicts: dict[str, int]
    """How many steps got each status."""
    reason: str
    """Why it failed or stopped."""


class Summary(Model):
    """summary.json. The totals are those that the baseline prints at its end: a task that failed is in no sum, but it
    is in ``total_count``, and so in the averages."""

    format_version: int = 1
    """Version of this file's format."""
    run: str
    """The run."""
    correct_count: int
    """Tasks that have a correct kernel."""
    total_count: int
    """All tasks."""
    sum_speedup: float
    """Sum of the best speedups."""
    average_speedup: float
    """The same over all tasks."""
    accuracy: float
    """correct_count / total_count."""
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    lost_requests: int
    lost_usd: float
    tasks: list[TaskSummary]

    @property
    def complete(self) -> bool:
        """Whether every task has come to its end."""
        return all(row.status in ("done", "stopped") for row in self.tasks)


class MergedTask(TaskSummary):
    """One task of several runs."""

    run: str
    """The folder of the run that it is of."""


class MergedSummary(Summary):
    """Several runs over different tasks in one table."""

    tasks: list[MergedTask]


AnySummary = TypeVar("AnySummary", bound=Summary)


def summarize(config: Config, tasks: list[Task]) -> Summary:
    """Read what a run has reached so far; a task that is not complete says why."""
    return total(Summary, config.run_name, [summarize_task(config, task) for task in tasks])


def total(kind: type[AnySummary], run: str, rows: Sequence[TaskSummary]) -> AnySummary:
    """The tasks' rows with what they come to."""
    speedups = [row.best_speedup for row in rows if row.best_speedup is not None]
    costs = [row.cost_usd for row in rows]
    return kind(
        run=run,
        correct_count=len(speedups),
        total_count=len(rows),
        sum_speedup=sum(speedups),
        average_speedup=sum(speedups) / len(rows),
        accuracy=len(speedups) / len(rows),
        input_tokens=sum(row.input_tokens for row in rows),
        output_tokens=sum(row.output_tokens for row in rows),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        lost_requests=sum(row.lost_requests for row in rows),
        lost_usd=sum(row.lost_usd for row in rows),
        tasks=list(rows),
    )


def merge_summaries(folders: list[Path]) -> MergedSummary:
    """The summaries of several runs, over different tasks, as one. A run that goes on counts as far as it was told.

    Raises:
        UserError: a folder has no summary, or a task is in two of the runs.
    """
    rows: dict[str, MergedTask] = {}
    for folder in folders:
        # The partial one is there only while not all tasks are done, and then it is the later one.
        files = [folder / f"{name}.json" for name in ("summary.partial", "summary")]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            config = folder / "config.yaml"
            raise UserError(f"{folder}: has no summary.json; `python scripts/summarize.py --config {config}` makes it")
        for row in read_model(found, Summary).tasks:
            if row.task in rows:
                raise UserError(
                    f"{row.task}: is a task of {rows[row.task].run} and of {folder}; "
                    "runs that are merged have no task in common (scripts/compare.py is for those that have)"
                )
            rows[row.task] = MergedTask(run=str(folder), **row.model_dump())
    return total(MergedSummary, " + ".join(map(str, folders)), list(rows.values()))


def summarize_task(config: Config, task: Task) -> TaskSummary:
    """Read one task's steps."""
    folder = config.results / task.name
    planned = create_strategy(config, task.name).steps
    done = steps_done(folder, planned)
    passed = len(done)
    last = done[-1] if done else None
    skipped = [one for one in done if one.skipped]
    done = [one for one in done if not one.skipped]
    responses = kept_answers(config.results, task.name)
    lost = lost_requests(config.results, task.name)
    costs = [response.cost_usd for response in responses]
    verdicts: dict[str, int] = {}
    for one in done:
        verdicts[one.evaluation.status.value] = verdicts.get(one.evaluation.status.value, 0) + 1
    state = last.state if last is not None else None
    complete = passed == planned and all((folder / "best" / name).exists() for name in ENDS.values())
    best_step, refuted = chosen_step(folder, state, complete)
    evaluation = step(folder, best_step).evaluation if best_step is not None else None
    fault = None if complete else why_failed(config, task, passed + 1)
    stopped = (state.stopped or state.skipped or "") if state is not None else ""
    if skipped:
        stopped = f"{stopped or skipped[0].skipped} ({_numbers([one.number for one in skipped])} not asked)"
    return TaskSummary(
        task=task.name,
        status=("stopped" if stopped else "done") if complete else "failed" if fault else "unfinished",
        steps=len(done),
        skipped=len(skipped),
        steps_planned=planned,
        compiled=sum(one.evaluation.compiled for one in done),
        correct=sum(one.evaluation.correct for one in done),
        best_step=best_step,
        best_speedup=evaluation.speedup if evaluation else None,
        best_speedup_geomean=evaluation.speedup_geomean if evaluation else None,
        best_latency_ms=evaluation.latency_ms if evaluation else None,
        input_tokens=sum(response.usage.input_tokens for response in responses),
        output_tokens=sum(response.usage.output_tokens for response in responses),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        lost_requests=len(lost),
        lost_usd=sum(one.worst_usd or 0.0 for one in lost),
        device=last.evaluation.device.name if last is not None else "",
        verdicts=verdicts,
        reason="; ".join(filter(None, [stopped, refuted])) if complete else fault or _not_run(passed, planned),
    )


def chosen_step(folder: Path, state: State | None, complete: bool) -> tuple[int | None, str]:
    """The step of a task's best kernel, None while none is correct; and why the best by its verdict is not it.

    At a task's end that is what confirm_best has found, until then the best so far.
    """
    best = state.best if state is not None and state.best is not None and state.best.correct else None
    if not complete:
        return (best.step if best else None), ""
    confirmation = read_model(folder / "best" / "confirmation.json", Confirmation)
    wrong = [one for one in confirmation.contenders if one.status is not Status.PASSED]
    told = [f"step {one.step} was right in its step, but not on fresh draws: {one.status.value}" for one in wrong]
    return confirmation.step, "; ".join(told)


def _not_run(passed: int, planned: int) -> str:
    return f"step {passed + 1} was not run" if passed < planned else "its best kernel was not confirmed"


def steps_done(folder: Path, planned: int) -> list[Step]:
    """A task's steps up to the first that is not done; skipped ones are in it."""
    done: list[Step] = []
    for number in range(1, planned + 1):
        one = step(folder, number)
        # An evaluation that is being made again is not there, while the state after it is still.
        if not all((one.folder / name).exists() for name in ("best.json", "evaluation.json")):
            break
        done.append(one)
    return done


def _numbers(steps: list[int]) -> str:
    """The names of steps, in words."""
    if len(steps) == 1:
        return f"step {steps[0]}"
    if steps[-1] - steps[0] == len(steps) - 1:
        return f"steps {steps[0]} to {steps[-1]}"
    return f"steps {', '.join(map(str, steps))}"


def why_failed(config: Config, task: Task, number: int) -> str | None:
    """What the log of the job says that a task did not get past; None where no log tells of a fault."""
    logs = config.results / "logs" / task.name
    folder = config.results / task.name
    candidates = [
        ("check_task", logs / "check_task.log", folder / "definition.json"),
        ("measure_reference", logs / "measure_reference.log", folder / "reference" / "reference.json"),
        *(
            (stage, logs / f"step_{number}" / f"{stage}.log", step(folder, number).folder / output)
            for stage, output in STAGES.items()
        ),
        *((stage, logs / f"{stage}.log", folder / "best" / output) for stage, output in ENDS.items()),
    ]
    for stage, log, output in candidates:
        if output.exists() or not log.exists():
            continue
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        told = next((line for line in reversed(lines) if line.startswith("error: ")), None)
        of = f"{stage} of step {number}" if stage in STAGES else stage
        if told is not None:
            return f"{of}: {told.removeprefix('error: ')} ({log})"
        if any(line.startswith("Traceback (most recent call last)") for line in lines):
            return f"{of}: {lines[-1]} ({log})"
    return None


def summary_csv(summary: Summary) -> str:
    """The tasks as CSV, a line each."""
    text = io.StringIO()
    columns = list((MergedTask if isinstance(summary, MergedSummary) else TaskSummary).model_fields)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in summary.tasks:
        values = row.model_dump()
        values["verdicts"] = " ".join(f"{status}={count}" for status, count in row.verdicts.items())
        writer.writerow(["" if values[column] is None else values[column] for column in columns])
    return text.getvalue()


def print_summary(summary: Summary, details: Path | None) -> None:
    """The tasks as a table, and what they come to."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 160)
    table = Table(title=f"{summary.run}", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("task", overflow="fold")
    for column in ("status", "steps", "compiled", "correct", "best step", "speedup", "latency", "tokens", "cost"):
        table.add_column(column, justify="right" if column != "status" else "left", no_wrap=True)
    for row in summary.tasks:
        table.add_row(
            row.task,
            row.status,
            f"{row.steps}/{row.steps_planned}",
            str(row.compiled),
            str(row.correct),
            str(row.best_step or "-"),
            f"{row.best_speedup:.3g}x" if row.best_speedup is not None else "-",
            f"{row.best_latency_ms:.3g} ms" if row.best_latency_ms is not None else "-",
            str(row.input_tokens + row.output_tokens),
            "?" if row.cost_usd is None else f"${row.cost_usd:.2f}",
        )
    console.print(table)
    for row in summary.tasks:
        if row.reason:
            console.print(f"{row.task}: {row.status}: {row.reason}", soft_wrap=True)
    devices = sorted({row.device for row in summary.tasks if row.device})
    cost = "cost unknown" if summary.cost_usd is None else f"cost ${summary.cost_usd:.2f}"
    if summary.lost_requests:
        cost += f" (and ${summary.lost_usd:.2f} at most for {summary.lost_requests} requests without an answer)"
    console.print(
        f"Correct count {summary.correct_count}, total count {summary.total_count}, accuracy {summary.accuracy:.3g}, "
        f"sum of speedups {summary.sum_speedup:.3g}, average speedup {summary.average_speedup:.3g}, {cost}; "
        f"measured on {', '.join(devices) or 'nothing yet'}." + (f" Details: {details}" if details else ""),
        soft_wrap=True,
    )


def print_report(summary: Summary, folder: Path) -> None:
    """Where a run's report is, or how it is made of what there is."""
    if summary.complete:
        print(f"Report: {folder / 'report' / 'index.html'}; as one file: snakemake --report report.html")
    else:
        config = shlex.quote(str(folder / "config.yaml"))
        print(f"Report of what there is: python scripts/write_report.py --config {config}")
