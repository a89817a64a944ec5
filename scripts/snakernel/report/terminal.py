"""What a person sees while a run goes on, in the place of Snakemake's own lines: a live table on a terminal, a line a
verdict in a file or a pipe, failures in words in both, and live.html.

It is a handler of Snakemake's logger, put in by the Snakefile: a logger plugin would have to be installed. A command
that runs no jobs (-n, --report, --summary, ...) and one that asks for more (--verbose, -p) or less (--quiet), or for a
logger of its own (--logger), has Snakemake's own lines.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

from snakernel.config import Config
from snakernel.dataset import Task
from snakernel.report.live import write_live_page
from snakernel.report.monitor import Event, Monitor, TaskState, money
from snakernel.report.page import count, duration

LIVE_PAGE_S = 2.0
"""Seconds between two states of the live page."""
WIDE = 120
"""Columns from which on the table has room for what goes on."""
QUIET = {Quietness.HOST, Quietness.REASON}
"""What profiles/default is quiet about, for the commands that have Snakemake's own lines."""


def watch_run(workflow: Any, config: Config, tasks: list[Task]) -> None:
    """Put the terminal in the place of Snakemake's own handler, where this call may run jobs."""
    output, logger = workflow.output_settings, workflow.logger_manager.logger
    own = next((one for one in logger.handlers if one.name == "DefaultStreamHandler"), None)
    asked = output.dryrun or output.verbose or output.printshellcmds or output.debug_dag or output.stdout
    if own is None or asked or not workflow.is_main_process or set(output.quiet or ()) - QUIET:
        return
    logger.removeHandler(own)
    logger.addHandler(Terminal(own, config, tasks, nocolor=output.nocolor))


class Terminal(logging.Handler):
    """The handler; until the workflow has started, all is left to Snakemake's own one."""

    def __init__(self, own: logging.StreamHandler, config: Config, tasks: list[Task], nocolor: bool = False):
        super().__init__()
        self.name = "SnakernelTerminal"
        self.own, self.config, self.tasks = own, config, tasks
        self.console = Console(file=own.stream, no_color=nocolor or None, highlight=False, soft_wrap=True)
        self.monitor: Monitor | None = None
        self.live: Live | None = None
        self.jobs: dict[int, tuple[str, str | None, int | None]] = {}
        self.told: set[int] = set()
        self.running = False
        """A job has begun."""
        self.page_written = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record of Snakemake's."""
        try:
            event = getattr(record, "event", None)
            if event == LogEvent.WORKFLOW_STARTED:
                self.start()
            elif self.monitor is None:
                if record.msg != "Assuming unrestricted shared filesystem usage.":  # said of every run
                    self.own.handle(record)
            elif event in (None, LogEvent.ERROR):
                self.message(record)
            else:
                self.job_event(event, record, self.monitor)
        except Exception:
            self.handleError(record)

    def start(self) -> None:
        """The workflow has started: it is being planned."""
        self.monitor = Monitor.of(self.config, self.tasks)
        steps = sum(task.planned for task in self.monitor.tasks.values())
        names, services = ", ".join(self.config.model_shares), ", ".join(self.config.services)
        self.console.print(
            f"{self.config.run_name}: {len(self.tasks)} tasks, {steps} steps, {self.config.agent_type} agent, "
            f"{names} ({services}), judged on {self.config.eval_backend}"
        )

    def message(self, record: logging.LogRecord) -> None:
        """A message that is of no job: warnings and errors, and that there is nothing to do."""
        text = str(record.getMessage() if record.args else record.msg or "")
        if text.startswith("Nothing to be done"):
            self.console.print("Nothing to be done: all is there and up to date.")
        elif record.levelno >= logging.WARNING and not text.startswith("RuleException:\nCalledProcessError"):
            # That a command ended with an error is told with its log, as the job's failure.
            self.console.print(text, style="red" if record.levelno >= logging.ERROR else "yellow", markup=False)

    def job_event(self, event: LogEvent, record: logging.LogRecord, monitor: Monitor) -> None:
        """Something of a job, or the count of all."""
        if event == LogEvent.JOB_INFO:
            wildcards = dict(record.wildcards.items()) if record.wildcards else {}
            step = int(wildcards["step"]) if "step" in wildcards else None
            self.jobs[record.jobid] = (record.rule_name, wildcards.get("task"), step)
            self.begin()
            monitor.job_begins(str(record.jobid), *self.jobs[record.jobid])
        elif event == LogEvent.JOB_FINISHED and record.job_id in self.jobs:
            self.tell(monitor.job_ends(str(record.job_id), *self.jobs[record.job_id]))
        elif event == LogEvent.JOB_ERROR and record.jobid not in self.told:
            self.told.add(record.jobid)
            of = self.jobs.get(record.jobid, (record.rule_name, None, None))
            self.tell(monitor.job_fails(str(record.jobid), *of, logs=[str(log) for log in record.log or []]))
        elif event == LogEvent.PROGRESS:
            monitor.jobs_done, monitor.jobs_planned = record.done, record.total
        self.write_page()

    def begin(self) -> None:
        """The first job begins: on a terminal the live table opens."""
        assert self.monitor is not None
        if not self.running:
            self.running = True
            self.monitor.begun = time.time()
            self.console.print(f"live page: {self.config.results / 'live.html'}")
        if self.live is None and self.console.is_terminal and not self.console.is_dumb_terminal:
            self.live = Live(
                get_renderable=self.table, console=self.console, refresh_per_second=2, transient=True, screen=False
            )
            self.live.start()

    def tell(self, event: Event | None) -> None:
        """One line, above the live table if there is one; there, verdicts are in the table alone."""
        if event is None or (self.live is not None and not event.failed):
            return
        assert self.monitor is not None
        done, planned = self.monitor.jobs_done, self.monitor.jobs_planned
        share = f"{done / planned:4.0%} " if planned else "     "
        clock = time.strftime("%H:%M:%S", time.localtime(event.time))
        style = "red" if event.failed else None
        self.console.print(f"{clock} {share}{event.task} {event.text}", style=style, markup=False)

    def table(self) -> Group:
        """The live view: as many tasks as the screen has room for, those that something goes on in first."""
        assert self.monitor is not None
        monitor, width = self.monitor, self.console.width
        wide = width >= WIDE
        table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("task", ratio=1, no_wrap=True, overflow="ellipsis", min_width=16)
        for name in ("step", "last", "best", "spent"):
            table.add_column(name, no_wrap=True, justify="left" if name == "last" else "right")
        if wide:
            table.add_column("tokens", no_wrap=True, justify="right")
            table.add_column("now", no_wrap=True, overflow="ellipsis", ratio=1)
        room = max(3, self.console.height - 8)
        states = sorted(monitor.tasks.values(), key=lambda task: (not task.doing, task.done >= task.planned))
        shown = list(monitor.tasks.values()) if len(states) <= room else states[: room - 1]
        for task in shown:
            table.add_row(*row(task, wide))
        if len(shown) < len(states):
            table.add_row(Text(f"... and {len(states) - len(shown)} more tasks", style="dim"))
        left = monitor.seconds_left
        told = f"{monitor.jobs_done}/{monitor.jobs_planned} jobs, {duration(time.time() - monitor.begun)}"
        told += f", {duration(left)} left" if left is not None else ""
        told += f", {money(monitor.cost_usd)}"
        foot = Table.grid(expand=True, padding=(0, 1, 0, 0))
        foot.add_column(ratio=1)
        foot.add_column(no_wrap=True)
        foot.add_row(ProgressBar(total=max(1, monitor.jobs_planned), completed=monitor.jobs_done), told)
        return Group(table, foot)

    def write_page(self, last: bool = False) -> None:
        """Write the live page, if it is time to."""
        if self.monitor is None or not (last or (self.running and time.time() - self.page_written >= LIVE_PAGE_S)):
            return
        write_live_page(self.monitor)
        self.page_written = time.time()

    def finish(self) -> None:
        """The run has ended: the live table goes, the live page has its last state."""
        if self.live is not None:
            self.live.stop()
            self.live = None
        if self.monitor is not None and self.running and self.monitor.ended is None:
            self.monitor.ended = time.time()
            self.write_page(last=True)

    def close(self) -> None:
        """Snakemake ends, however it does."""
        self.finish()
        self.own.close()
        super().close()


def row(task: TaskState, wide: bool) -> list[Text]:
    """A task's line."""
    status = task.last_status or "-"
    colour = {"PASSED": "green", "-": "dim"}.get(status, "yellow")
    best = f"{task.best[1]:.3g}x" if task.best else "-"
    cells = [
        Text(task.name, style="red" if task.failures else ""),
        Text(f"{task.done}/{task.planned}"),
        Text(short(status) if not task.failures else "failed", style="red" if task.failures else colour),
        Text(best),
        Text(money(task.cost_usd)),
    ]
    if wide:
        now = "; ".join(task.doing.values()) or ("done" if task.done >= task.planned else "waiting")
        cells += [Text(count(task.tokens)), Text(task.failures[-1] if task.failures else now)]
    return cells


def short(status: str) -> str:
    """A status that fits into the table."""
    return status.removeprefix("INCORRECT_") if status != "INCORRECT_NUMERICAL" else "WRONG"


def finish(workflow: Any) -> None:
    """Before the run's last words: end the live table."""
    for handler in workflow.logger_manager.logger.handlers:
        if isinstance(handler, Terminal):
            handler.finish()
