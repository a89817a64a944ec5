"""The report's plots as Vega-Lite 5 specifications, drawn by the Vega that comes with Snakemake's report."""

from __future__ import annotations

import math
import statistics
from typing import Any

from snakernel.evaluation.verdict import Status, WorkloadResult
from snakernel.report.data import RunReport, TaskReport

Spec = dict[str, Any]

COLOURS = {
    Status.PASSED: "#1a7f37",
    Status.INCORRECT_NUMERICAL: "#bc4c00",
    Status.INCORRECT_SHAPE: "#9a6700",
    Status.INCORRECT_DTYPE: "#7d4e00",
    Status.RUNTIME_ERROR: "#cf222e",
    Status.COMPILE_ERROR: "#8250df",
    Status.TIMEOUT: "#0969da",
    Status.REJECTED: "#24292f",
}
"""A colour a verdict; each has a contrast of 4.5 to 1 on white, so that text can have it too."""
SERIES = {"this kernel": "#1a7f37", "reference": "#57606a", "baseline": "#0969da", "roofline": "#bc4c00"}
CONFIG = {
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif",
    "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 500, "gridColor": "#eaeef2", "tickCount": 6},
    "legend": {
        "orient": "bottom",
        "labelFontSize": 12,
        "title": None,
        "columns": {"expr": "containerSize()[0] < 480 ? 2 : 4"},
        "symbolSize": 90,
    },
    "view": {"stroke": None},
}
HEIGHT = 250
NAMES = {"labelExpr": "truncate(datum.label, max(16, containerSize()[0] / 16), 'center')", "labelLimit": 400}
"""An axis of names: long ones lose their middle, since tasks of an operator differ at the end."""


def step_charts(task: TaskReport) -> list[tuple[str, Spec]]:
    """Titles and plots of one task's page."""
    charts = [("Speedup over steps", speedup_over_steps(task))]
    if task.best is not None and task.best.workloads:
        charts.append(("Latency on each workload", latency_of_workloads(task)))
    if task.rows and task.rows[-1].spent_tokens:
        charts.append(spent_over_steps(task))
    return charts


def speedup_over_steps(task: TaskReport) -> Spec:
    """The best so far as a line, each attempt as a point coloured by its verdict; what is not correct lies at 0."""
    values = [
        {
            "step": row.number,
            "speedup": row.evaluation.speedup or 0,
            "best": row.best_speedup,
            "verdict": row.evaluation.status.value,
        }
        for row in task.rows
    ]
    verdicts = sorted({row.evaluation.status for row in task.rows}, key=list(Status).index)
    x = whole("step", "step")
    return chart(
        f"Speedup against the reference over the steps of {task.name}",
        values,
        layer=[
            {
                "mark": {"type": "line", "interpolate": "step-after", "color": "#57606a", "strokeWidth": 2},
                "transform": [{"filter": "datum.best != null"}],
                "encoding": {"x": x, "y": axis("best", "speedup")},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
                "encoding": {
                    "x": x,
                    "y": axis("speedup", "speedup"),
                    **marks("verdict", {one.value: COLOURS.get(one, "#57606a") for one in verdicts}),
                    "tooltip": [{"field": name} for name in ("step", "verdict", "speedup", "best")],
                },
            },
        ],
    )


def latency_of_workloads(task: TaskReport) -> Spec:
    """The latency of the best kernel with its 95 % interval, beside reference, baseline and roofline."""
    assert task.best is not None
    values = []
    for number, one in enumerate(task.best.workloads, 1):
        latency = one.latency
        of = {
            "this kernel": latency.median_ms if latency else None,
            "reference": one.reference_ms,
            "baseline": one.baseline_ms,
            "roofline": one.floor_ms,
        }
        for series, ms in of.items():
            if ms is not None:
                record = {"workload": number, "axes": axes(one), "of": series, "us": ms * 1e3}
                if series == "this kernel" and latency:
                    record |= {"low": latency.low_ms * 1e3, "high": latency.high_ms * 1e3}
                values.append(record)
    shown = {name: colour for name, colour in SERIES.items() if any(one["of"] == name for one in values)}
    x = whole("workload", "workload, by the reference's latency")
    y = axis("us", "latency, us (log)", scale={"type": "log"})
    return chart(
        f"Latency of the best kernel of {task.name} on each workload, in microseconds",
        values,
        layer=[
            {
                "mark": {"type": "rule", "color": SERIES["this kernel"], "strokeWidth": 2},
                "transform": [{"filter": "datum.of == 'this kernel'"}],
                "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                "encoding": {
                    "x": x,
                    "y": y,
                    **marks("of", shown),
                    "tooltip": [{"field": name} for name in ("of", "axes", "us", "low", "high")],
                },
            },
        ],
    )


def spent_over_steps(task: TaskReport) -> tuple[str, Spec]:
    """What the steps cost together; in tokens where a price is not known or nothing was paid."""
    paid = bool(task.rows) and bool(task.rows[-1].spent_usd)
    title = "Cost over steps" if paid else "Tokens over steps"
    values = [{"step": row.number, "spent": row.spent_usd if paid else row.spent_tokens} for row in task.rows]
    return title, chart(
        f"{title} of {task.name}",
        values,
        mark={"type": "area", "interpolate": "step-after", "color": "#0969da", "fillOpacity": 0.15, "line": True},
        encoding={
            "x": whole("step", "step"),
            "y": axis("spent", "US dollars, together" if paid else "tokens, together"),
            "tooltip": [{"field": "step"}, {"field": "spent"}],
        },
    )


def best_of_tasks(run: RunReport) -> Spec:
    """The best speedup of every task, against the reference and against the baseline where there is one."""
    values = []
    for task in run.tasks:
        if task.best is None:
            continue
        values.append({"task": task.name, "against": "reference", "speedup": task.summary.best_speedup})
        if task.best.baseline_speedup is not None:
            values.append({"task": task.name, "against": "baseline", "speedup": task.best.baseline_speedup})
    shown = {name: SERIES[name] for name in ("reference", "baseline") if any(v["against"] == name for v in values)}
    spec = chart(
        "Best speedup of every task",
        values,
        layer=[
            {
                "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
                "encoding": {
                    "y": {
                        "field": "task",
                        "type": "nominal",
                        "title": None,
                        "sort": {"field": "speedup", "op": "max", "order": "descending"},
                        "axis": {**NAMES, "grid": True},
                    },
                    "x": axis("speedup", "speedup (log)", scale={"type": "log", "nice": True}),
                    **marks("against", shown),
                    "tooltip": [{"field": name} for name in ("task", "against", "speedup")],
                },
            },
            {
                "data": {"values": [{"one": 1}]},
                "mark": {"type": "rule", "strokeDash": [4, 4], "color": "#57606a"},
                "encoding": {"x": {"field": "one", "type": "quantitative"}},
            },
        ],
    )
    return spec | {"height": max(HEIGHT, 60 + 20 * len({one["task"] for one in values}))}


def speedup_over_cost(run: RunReport) -> tuple[str, Spec]:
    """The mean best speedup of all tasks (0 while a task has none, as in the baseline's average) over what was spent,
    a point a step of all tasks; over tokens where nothing was paid, over steps where no tokens were counted."""
    last = max((row.number for task in run.tasks for row in task.rows), default=0)
    values = []
    for number in range(1, last + 1):
        upto = [[row for row in task.rows if row.number <= number] for task in run.tasks]
        costs = [rows[-1].spent_usd for rows in upto if rows]
        values.append(
            {
                "step": number,
                "speedup": statistics.fmean((rows[-1].best_speedup or 0) if rows else 0 for rows in upto),
                "usd": None if None in costs else sum(cost or 0 for cost in costs),
                "tokens": sum(rows[-1].spent_tokens for rows in upto if rows),
            }
        )
    final = values[-1] if values else {"usd": 0, "tokens": 0}
    field, unit = (
        ("usd", "US dollars") if final["usd"] else ("tokens", "tokens") if final["tokens"] else ("step", "step")
    )
    title = {"usd": "Speedup over cost", "tokens": "Speedup over tokens", "step": "Speedup over steps"}[field]
    return title, chart(
        f"{title}: mean best speedup of all tasks",
        values,
        mark={"type": "line", "interpolate": "step-after", "point": {"size": 50}, "color": "#0969da"},
        encoding={
            "x": (whole if field == "step" else axis)(field, f"{unit}, all tasks together"),
            "y": axis("speedup", "mean best speedup"),
            "tooltip": [{"field": name} for name in ("step", "speedup", "usd", "tokens")],
        },
    )


def fast_p(run: RunReport, p: float) -> float:
    """Share of the tasks with a correct kernel whose speedup against the reference is over ``p`` (KernelBench)."""
    speedups = [task.summary.best_speedup for task in run.tasks]
    return sum(speedup is not None and speedup > p for speedup in speedups) / len(speedups)


def fast_p_points(run: RunReport) -> list[float]:
    """The p that a table shows: the customary ones, and smaller or larger ones where the speedups are."""
    speedups = [task.summary.best_speedup for task in run.tasks if task.summary.best_speedup]
    low, high = min(speedups, default=1.0), max(speedups, default=1.0)
    small = [p for p in (0.01, 0.03, 0.1, 0.3) if low <= p]
    return [0, *small, 0.5, 0.8, 1, 1.5, 2, *[p for p in (3, 5, 10, 20, 50, 100) if p < high]]


def fast_p_curve(run: RunReport) -> Spec:
    """fast_p over p: how many tasks have a correct kernel that is over p times as fast as the reference."""
    speedups = sorted(task.summary.best_speedup for task in run.tasks if task.summary.best_speedup)
    low = min([*speedups, 0.5]) / 2
    points = [low, *speedups, max([*speedups, 2.0]) * 1.5]
    # fast_p falls at each speedup, so the line holds its value up to it.
    values = [{"p": p, "share": fast_p(run, p * (1 - 1e-12) if n > 0 else p)} for n, p in enumerate(points)]
    return chart(
        "fast_p: share of tasks with a correct kernel that is over p times as fast as the reference",
        values,
        layer=[
            {
                "mark": {"type": "line", "interpolate": "step-before", "color": "#0969da", "strokeWidth": 2},
                "encoding": {
                    "x": axis("p", "p (log)", scale={"type": "log", "nice": False}),
                    "y": axis("share", "share of tasks", scale={"domain": [0, 1]}, format="%"),
                    "tooltip": [{"field": "p"}, {"field": "share"}],
                },
            }
        ],
    )


def axes(workload: WorkloadResult) -> str:
    """A workload's axes in one line."""
    return ", ".join(f"{axis}={value}" for axis, value in workload.axes.items())


def chart(description: str, values: list[dict[str, Any]], **parts: Any) -> Spec:
    """A plot as wide as its place."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "description": description,
        "width": "container",
        "height": HEIGHT,
        "autosize": {"type": "fit", "contains": "padding"},
        "config": CONFIG,
        "data": {"values": [{name: rounded(value) for name, value in record.items()} for record in values]},
        **parts,
    }


def axis(field: str, title: str, scale: Spec | None = None, **keys: Any) -> Spec:
    """A quantitative channel."""
    return {
        "field": field,
        "type": "quantitative",
        "axis": {"title": title, **keys},
        **({"scale": scale} if scale else {}),
    }


def whole(field: str, title: str) -> Spec:
    """A channel of numbers that count something, from the first on."""
    scale = {"zero": False, "nice": False, "padding": 12}
    return axis(field, title, scale, tickMinStep=1, format="d", grid=False)


def marks(field: str, palette: dict[str, str]) -> Spec:
    """Colour and shape of named values, so that they differ without colour too; a legend where there are several."""
    # INCORRECT_NUMERICAL and another beside it are wider than a phone.
    legend = {"labelExpr": "lower(replace(datum.label, /_/g, ' '))"} if len(palette) > 1 else None
    shared = {"field": field, "type": "nominal", "legend": legend}
    return {
        "color": {**shared, "scale": {"domain": list(palette), "range": list(palette.values())}},
        "shape": {**shared, "scale": {"domain": list(palette)}},
    }


def rounded(value: Any) -> Any:
    """Four significant digits, so that a plot's data take little room."""
    if isinstance(value, float) and value and math.isfinite(value):
        return float(f"{value:.4g}")
    return value
