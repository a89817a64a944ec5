"""Runs side by side over the tasks that all of them have: which kernels are faster, and how sure that is."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from snakernel.config import Config, read_config
from snakernel.errors import UserError
from snakernel.evaluation.verdict import Evaluation
from snakernel.files import read_model
from snakernel.report import charts
from snakernel.report.page import render, script, vega
from snakernel.summary import Summary, TaskSummary

RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Run:
    """One run: its tasks by name, and of those that have a correct kernel the verdict on it."""

    folder: Path
    config: Config
    summary: Summary
    tasks: dict[str, TaskSummary]
    best: dict[str, Evaluation]


@dataclass(frozen=True)
class RunRow:
    """What one run reached on the common tasks."""

    name: str
    what: str
    """Agent and models."""
    device: str
    solved: Estimate
    """Share of the tasks with a correct kernel; Wilson's interval."""
    fast_1: Estimate
    """Share of the tasks with a correct kernel that is faster than the reference; Wilson's interval."""
    correct: Estimate
    """Share of the attempts whose kernel is correct; Wilson's interval, as if no attempt learned from another."""
    speedup: float | None
    """Geometric mean of the best speedups against the reference, of the tasks that all runs have solved."""
    times: Estimate | None
    """Latency of the first run's kernels over this one's: geometric mean over the tasks that both have solved; its
    interval is a bootstrap over the tasks. Over 1, this run's are faster. None for the first run, and where there is
    no such task."""
    common: int
    """Tasks that both have solved."""
    cost_usd: float | None
    tokens: int
    complete: bool


@dataclass(frozen=True)
class TaskRow:
    """One task in all runs."""

    name: str
    speedups: list[float | None]
    """Against the reference; None where no kernel is correct."""
    times: list[Estimate | None]
    """Latency of the first run's kernel over each other's: geometric mean over workloads. The interval is that of the
    latencies at their worst for either side."""


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other; the first is what the others are compared with."""

    runs: list[RunRow]
    tasks: list[TaskRow]
    warnings: list[str]


def read(folder: Path) -> Run:
    """A run's summary and the verdicts on its best kernels.

    Raises:
        UserError: the folder holds no run, or one of its files is damaged.
    """
    found = [folder / name for name in ("summary.json", "summary.partial.json") if (folder / name).exists()]
    if not found:
        raise UserError(f"{folder}: holds no summary.json; give the folder of a run, such as results/iterative_mini")
    summary = read_model(found[0], Summary)
    best = {}
    for row in summary.tasks:
        path = folder / row.task / "best" / "evaluation.json"
        if not path.exists() and row.best_step is not None:
            path = folder / row.task / f"step_{row.best_step}" / "evaluation.json"
        if row.best_step is not None:
            best[row.task] = read_model(path, Evaluation)
    tasks = {row.task: row for row in summary.tasks}
    return Run(folder, read_config(folder / "config.yaml"), summary, tasks, best)


def compare_runs(folders: list[Path]) -> Comparison:
    """Compare runs over the tasks that all of them have.

    Raises:
        UserError: there are fewer than two runs, one of them cannot be read, or they have no task in common.
    """
    if len(folders) < 2:
        raise UserError("give two or more folders of runs")
    runs = [read(folder) for folder in folders]
    names = [task for task in runs[0].tasks if all(task in run.tasks for run in runs)]
    if not names:
        raise UserError(f"{', '.join(map(str, folders))}: no task is in all of these runs")
    tasks = [
        TaskRow(
            name,
            [run.best[name].speedup if name in run.best else None for run in runs],
            [None, *(task_ratio(runs[0].best.get(name), run.best.get(name)) for run in runs[1:])],
        )
        for name in names
    ]
    return Comparison([run_row(index, run, tasks) for index, run in enumerate(runs)], tasks, warnings(runs, names))


def task_ratio(first: Evaluation | None, other: Evaluation | None) -> Estimate | None:
    """Latency of one kernel over another's, over the workloads that both were judged on; None where there is none."""
    if first is None or other is None:
        return None
    beside = {one.uuid: one.latency for one in other.workloads}
    pairs = [(one.latency, beside.get(one.uuid)) for one in first.workloads]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not known:
        return None
    return Estimate(
        statistics.geometric_mean(a.median_ms / b.median_ms for a, b in known),
        statistics.geometric_mean(a.low_ms / b.high_ms for a, b in known),
        statistics.geometric_mean(a.high_ms / b.low_ms for a, b in known),
    )


def run_row(index: int, run: Run, tasks: list[TaskRow]) -> RunRow:
    """The line of the run at ``index``."""
    rows = [run.tasks[task.name] for task in tasks]
    speedups = [task.speedups[index] for task in tasks]
    everywhere = [s for s, task in zip(speedups, tasks, strict=True) if s is not None and None not in task.speedups]
    ratios = [one.value for task in tasks if (one := task.times[index]) is not None]
    costs = [row.cost_usd for row in rows]
    models = ", ".join(run.config.model_shares)
    return RunRow(
        name=run.summary.run,
        what=f"{run.config.agent_type}, {models}",
        device=", ".join(sorted({row.device for row in rows if row.device})),
        solved=wilson(sum(one is not None for one in speedups), len(tasks)),
        fast_1=wilson(sum(one is not None and one > 1 for one in speedups), len(tasks)),
        correct=wilson(sum(row.correct for row in rows), sum(row.steps for row in rows)),
        speedup=statistics.geometric_mean(everywhere) if everywhere else None,
        times=bootstrap(ratios) if ratios else None,
        common=len(ratios),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        tokens=sum(row.input_tokens + row.output_tokens for row in rows),
        complete=run.summary.complete,
    )


def warnings(runs: list[Run], names: list[str]) -> list[str]:
    """What makes the comparison worth less than it looks."""
    told = []
    devices = sorted({run.tasks[name].device for run in runs for name in names if run.tasks[name].device})
    if len(devices) > 1:
        told.append(
            f"the runs were measured on different devices ({', '.join(devices)}): their latencies do not compare"
        )
    timings = {one.timing for run in runs for name, one in run.best.items() if name in names}
    if len(timings) > 1:
        told.append("latencies were measured in different ways")
    tolerances = {(run.config.atol, run.config.rtol, run.config.required_matched_ratio) for run in runs}
    if len(tolerances) > 1:
        told.append("the runs have different tolerances, so correct does not mean the same")
    told += [f"{run.summary.run} is not complete" for run in runs if not run.summary.complete]
    left = {name for run in runs for name in run.tasks} - set(names)
    if left:
        told.append(f"{len(left)} tasks are not in all runs and are left out")
    if len(names) < 10:
        told.append(f"only {len(names)} tasks: the intervals over tasks are rough")
    return told


def wilson(count: int, total: int) -> Estimate:
    """A share with Wilson's 95 % interval."""
    if not total:
        return Estimate(0.0, 0.0, 1.0)
    z, share = 1.959964, count / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    reach = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    return Estimate(share, max(0.0, middle - reach), min(1.0, middle + reach))


def bootstrap(ratios: Sequence[float], resamples: int = RESAMPLES) -> Estimate:
    """Geometric mean with its 95 % bootstrap percentile interval; the same for the same ratios."""
    logs = [math.log(ratio) for ratio in ratios]
    rng = random.Random(0)
    means = sorted(statistics.fmean(rng.choices(logs, k=len(logs))) for _ in range(resamples))
    low, high = means[round(0.025 * (resamples - 1))], means[round(0.975 * (resamples - 1))]
    return Estimate(*(math.exp(value) for value in (statistics.fmean(logs), low, high)))


def comparison_page(comparison: Comparison) -> str:
    """The comparison as a page that needs nothing else."""
    return render(
        "comparison.html.j2",
        runs=comparison.runs,
        tasks=comparison.tasks,
        warnings=comparison.warnings,
        charts=[
            (f"{row.name} against {comparison.runs[0].name}", ratios_chart(comparison, index))
            for index, row in enumerate(comparison.runs)
            if row.times is not None
        ],
        vega=vega(),
        script=script(),
        interval=interval,
        shares=shares,
        colours=charts.COLOURS,
    )


def print_comparison(comparison: Comparison) -> None:
    """The comparison on the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 160)
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("run", "what", "solved", "over 1x", "correct attempts", "speedup", "times as fast", "cost", "tokens"):
        table.add_column(name, overflow="fold")
    for row in comparison.runs:
        table.add_row(
            row.name,
            row.what,
            *(shares(one) for one in (row.solved, row.fast_1, row.correct)),
            "-" if row.speedup is None else f"{row.speedup:.3g}x",
            interval(row.times),
            "?" if row.cost_usd is None else f"${row.cost_usd:.2f}",
            str(row.tokens),
        )
    console.print(table)
    tasks = Table(box=box.SIMPLE_HEAD)
    tasks.add_column("task", overflow="fold")
    for row in comparison.runs:
        tasks.add_column(row.name, justify="right", overflow="fold")
    for task in comparison.tasks:
        cells = ["-" if one is None else f"{one:.3g}x" for one in task.speedups]
        cells = [f"{c} {interval(t)}" if t else c for c, t in zip(cells, task.times, strict=True)]
        tasks.add_row(task.name, *cells)
    console.print(tasks)
    first = comparison.runs[0].name
    console.print(
        f"Intervals are of 95 %. Times as fast: latency of {first}'s kernel over the run's, geometric mean; in "
        "brackets its interval (of a run: bootstrap over tasks; of a task: of the latencies).",
        soft_wrap=True,
    )
    for one in comparison.warnings:
        console.print(f"note: {one}", soft_wrap=True)


def interval(estimate: Estimate | None) -> str:
    """A ratio with its interval."""
    return "-" if estimate is None else f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def shares(estimate: Estimate) -> str:
    """A share with its interval."""
    return f"{estimate.value * 100:.0f} % [{estimate.low * 100:.0f}, {estimate.high * 100:.0f}]"


def ratios_chart(comparison: Comparison, index: int) -> charts.Spec:
    """How many times as fast a run's kernels are as the first run's, with intervals, task by task and over all."""
    run = comparison.runs[index]
    found = [(task.name, task.times[index]) for task in comparison.tasks] + [("all tasks", run.times)]
    values = [
        {"task": name, "times": one.value, "low": one.low, "high": one.high} for name, one in found if one is not None
    ]
    y = {"field": "task", "type": "nominal", "title": None, "sort": None, "axis": charts.NAMES}
    x = charts.axis("times", f"times as fast as {comparison.runs[0].name} (log)", scale={"type": "log"})
    spec = charts.chart(
        f"How many times as fast the kernels of {run.name} are",
        values,
        layer=[
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1, "color": "#0969da"},
                "encoding": {"y": y, "x": x, "tooltip": [{"field": f} for f in ("task", "times", "low", "high")]},
            },
            {
                "data": {"values": [{"one": 1}]},
                "mark": {"type": "rule", "strokeDash": [4, 4], "color": "#57606a"},
                "encoding": {"x": {"field": "one", "type": "quantitative"}},
            },
        ],
    )
    return spec | {"height": max(charts.HEIGHT, 60 + 20 * len(values))}
