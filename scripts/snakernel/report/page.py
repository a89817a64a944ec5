"""The report page: one HTML file that needs nothing else, an overview and a page a task."""

from __future__ import annotations

import base64
import gzip
import html
import json
import statistics
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from snakernel.config import config_yaml
from snakernel.prompts import shorten
from snakernel.report import charts
from snakernel.report.data import Best, RunReport
from snakernel.report.provenance import Provenance
from snakernel.report.starts import workflow_version

TEMPLATES = Path(__file__).parent / "templates"
TEXT_CHARS = 60_000
"""Of a prompt, an answer or a kernel; the whole one is in the step's folder."""
ERROR_CHARS = 1_500
"""Of an error; the whole one is in evaluation.json."""


def report_page(run: RunReport, provenance: dict[str, Provenance]) -> str:
    """The page as HTML."""
    rows = run.rows
    baselines = [task.best.baseline_speedup for task in run.tasks if task.best]
    baselines = [one for one in baselines if one is not None]
    has_baseline = bool(baselines)
    has_floor = any(task.best and task.best.floor_share is not None for task in run.tasks)
    shared = dict(
        run=run,
        asked=run.asked,
        provenance=provenance,
        attempts=len(rows),
        lost=run.summary.lost_requests,
        lost_usd=run.summary.lost_usd,
        correct=sum(row.evaluation.correct for row in rows),
        asked_s=sum(row.asked_s for row in rows),
        judged_s=sum(row.judged_s for row in rows),
        baseline_average=statistics.fmean(baselines) if baselines else None,
        has_baseline=has_baseline,
        has_floor=has_floor,
        devices=list(dict.fromkeys(device.name for device in run.devices)),
        versions=", ".join(f"{name} {version}" for name, version in run.versions.items()),
        on_cpu=any(device.kind == "cpu" for device in run.devices),
        statuses=sorted({row.status for row in run.summary.tasks}),
        failed=[row for row in run.summary.tasks if row.reason],
        fast_p=[(p, charts.fast_p(run, p)) for p in charts.fast_p_points(run)],
        config_yaml=config_yaml(run.config),
        columns=[
            ("task", False),
            ("status", False),
            ("speedup", True),
            *([("against baseline", True)] if has_baseline else []),
            ("latency", True),
            *([("of roofline", True)] if has_floor else []),
            ("correct", True),
            ("best step", True),
            ("cost", True),
            ("tokens", True),
            ("model", False),
        ],
        model_columns=[
            ("model asked for", False),
            ("service", False),
            ("answers", True),
            ("correct", True),
            ("best of tasks", True),
            ("cost", True),
            ("tokens", True),
        ],
        step_columns=[
            ("step", True),
            ("verdict", False),
            ("speedup", True),
            ("kernel", False),
            ("model", False),
            ("tokens", True),
            ("cost", True),
        ],
        workload_columns=[
            ("axes", False),
            ("latency", True),
            ("95 % interval", False),
            ("reference", True),
            ("speedup", True),
            *([("baseline", True)] if has_baseline else []),
            *([("roofline", True)] if has_floor else []),
            ("largest absolute error", True),
        ],
        largest=largest,
        colours=charts.COLOURS,
    )
    # The pages of tasks are packed: all of a large run's would take a browser seconds to read.
    pages = {
        task.name: pack(
            environment()
            .get_template("task.html.j2")
            .render(task=task, charts=charts.step_charts(task) if task.rows else [], **shared)
        )
        for task in run.tasks
    }
    return render(
        "page.html.j2",
        pages=pages,
        charts=[
            ("Best speedup of every task", charts.best_of_tasks(run)),
            charts.speedup_over_cost(run),
            ("fast_p over p (see the table)", charts.fast_p_curve(run)),
        ],
        version=workflow_version(),
        vega=vega(),
        script=script(),
        **shared,
    )


def pack(text: str) -> str:
    """A text as base64 of gzip, which page.js and start.js unpack."""
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 9, mtime=0)).decode()


def start_page(page: str) -> str:
    """A page as HTML for the start page of Snakemake's report, which shows HTML but runs no script that is in it.

    The page lies compressed in a frame's own document, which unpacks it and is as high as it. Over the whole width,
    with the graph of the rules below; on a phone, the menu above. Vega is left out: Snakemake's report has it.
    docutils takes no line over 10,000 characters.
    """
    for source in vega():
        page = page.replace(f"<script>{source}</script>", "")
    packed = textwrap.wrap(pack(page), 8_000)
    document = f"<!doctype html><meta charset=utf-8><title>Overview</title><script>{read('start.js')}</script>"
    parts = [
        f"<style>{read('start.css')}</style>",
        f'<iframe id="snakernel" title="Overview" srcdoc="{html.escape(document)}" data-page="',
        *packed,
        '"></iframe>',
    ]
    return "\n".join(parts) + "\n"


def render(template: str, **context: Any) -> str:
    """Fill a page's template; everything but what is marked as HTML is escaped."""
    return environment().get_template(template).render(style=Markup(read("style.css")), **context)


@cache
def environment() -> jinja2.Environment:
    """Templates and filters of the pages."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "times": times,
        "latency": latency,
        "usd": usd,
        "count": count,
        "percent": percent,
        "duration": duration,
        "significant": lambda value: f"{value:.3g}",
        "axes": charts.axes,
        "name": lambda text: Markup("_<wbr>").join(text.split("_")),
        "python": highlight,
        "json": lambda spec: Markup(json.dumps(spec, separators=(",", ":")).replace("<", "\\u003c")),
        "cut": lambda text: shorten(text, TEXT_CHARS),
        "cut_error": lambda text: shorten(text, ERROR_CHARS),
    }
    return found


def read(name: str) -> Markup:
    """A style or script of the pages."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def script() -> Markup:
    """What the pages do: draw, sort, filter, go from the overview to a task and back."""
    return read("page.js")


def vega() -> list[Markup]:
    """Vega, Vega-Lite and Vega-Embed as Snakemake ships them for its own report."""
    from snakemake.assets import Assets

    names = ("vega/vega.js", "vega-lite/vega-lite.js", "vega-embed/vega-embed.js")
    return [Markup(Assets.get_content(name)) for name in names]


def highlight(code: str) -> Markup:
    """Python source as HTML, coloured by Pygments."""
    import pygments
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return Markup(pygments.highlight(shorten(code, TEXT_CHARS), PythonLexer(), HtmlFormatter(nowrap=True)))


def largest(best: Best, error: str) -> str:
    """The largest error of a best kernel over its workloads."""
    values = [getattr(one, error) for one in best.workloads if getattr(one, error) is not None]
    return f"{max(values):.3g}" if values else "unknown"


def times(value: float | None) -> str:
    """A speedup."""
    return "-" if value is None else f"{value:.3g}x" if value < 1000 else f"{value:,.0f}x"


def latency(ms: float | None) -> str:
    """A latency given in milliseconds."""
    if ms is None:
        return "-"
    return f"{ms:.3g} ms" if ms >= 1 else f"{ms * 1e3:.3g} us"


def usd(value: float | None) -> str:
    """An amount of money."""
    if value is None:
        return "unknown price"
    return f"${value:,.2f}" if value >= 0.995 or value == 0 else f"${value:.2g}"


def count(value: float) -> str:
    """A large number."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:,.0f}"


def percent(value: float | None) -> str:
    """A share."""
    return "-" if value is None else f"{value * 100:.3g} %"


def duration(seconds: float | None) -> str:
    """A time in words."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
