"""live.html: the state of a run as a page that reloads itself; no server, so a folder that is shared will do."""

from __future__ import annotations

import time
from datetime import datetime

from snakernel.files import write_text
from snakernel.report.monitor import Monitor, TaskState
from snakernel.report.page import duration, read, render

RELOAD_S = 5
WIDTH, HEIGHT = 140, 28


def write_live_page(monitor: Monitor) -> None:
    """Write the page of the run's state; once the run has ended, it reloads itself no more."""
    results = monitor.config.results
    tasks = list(monitor.tasks.values())
    left = monitor.seconds_left
    page = render(
        "live.html.j2",
        run=monitor.config.run_name,
        tasks=tasks,
        cost_usd=monitor.cost_usd,
        tokens=sum(task.tokens for task in tasks),
        steps_done=sum(task.done for task in tasks),
        steps_planned=sum(task.planned for task in tasks),
        solved=sum(task.best is not None for task in tasks),
        jobs=(monitor.jobs_done, monitor.jobs_planned),
        running=monitor.ended is None,
        elapsed=duration((monitor.ended or time.time()) - monitor.begun),
        left=duration(left) if left is not None else "not known yet",
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
        events=[(datetime.fromtimestamp(one.time).strftime("%H:%M:%S"), one) for one in reversed(monitor.events)],
        spark=spark,
        reload_s=RELOAD_S,
        report=(results / "report" / "index.html").exists(),
        vega=None,
        script=read("live.js"),
    )
    write_text(results / "live.html", page)


def spark(task: TaskState) -> str | None:
    """The best speedup so far over the steps as points of an SVG polyline; None before there is a line to draw."""
    best, points = 0.0, []
    top = task.best[1] if task.best else 0.0
    for step, speedup in sorted(task.speedups.items()):
        best = max(best, speedup or 0.0)
        x = 2 + (WIDTH - 4) * (step - 1) / max(1, task.planned - 1)
        points.append(f"{x:.1f},{HEIGHT - 3 - (HEIGHT - 6) * (best / top if top else 0):.1f}")
    return " ".join(points) if len(points) > 1 and top else None
