"""The terminal and the live page, fed with Snakemake's records: tests/workflow/test_terminal.py has a real run."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from snakemake.logging import ColorizingTextHandler, DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent
from snakernel.config import Config
from snakernel.dataset import read_tasks
from snakernel.report.monitor import Monitor
from snakernel.report.terminal import Terminal, finish, watch_run
from synthetic_run import make_run

TASKS = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run of three tasks of four steps."""
    return make_run(tmp_path_factory.mktemp("run"), tasks=TASKS, steps=4, workloads=1)


@pytest.fixture
def config(made: Config) -> Config:
    """The same, without a live page."""
    (made.results / "live.html").unlink(missing_ok=True)
    return made


class Run:
    """A terminal, and what is fed to it."""

    def __init__(self, config: Config, width: int | None = None, height: int = 24):
        self.stream = io.StringIO()
        own = ColorizingTextHandler(stream=self.stream, formatter=DefaultFormatter())
        tasks = read_tasks(Path(config.tasks_path), config.dataset)
        self.terminal = Terminal(own, config, tasks)
        if width is not None:
            self.terminal.console = Console(
                file=self.stream, width=width, height=height, force_terminal=True, highlight=False, soft_wrap=True
            )
        self.names = [task.name for task in tasks]
        self.jobs = 0

    def record(self, message: str, event: LogEvent | None = None, level: int = logging.INFO, **values: object) -> None:
        """Feed one record."""
        record = logging.LogRecord("snakemake", level, "", 0, message, None, None)
        vars(record).update(values | ({"event": event} if event else {}))
        self.terminal.handle(record)

    def begin(self, rule: str, task: str | None = None, step: int | None = None) -> int:
        """A job begins; returns its number."""
        self.jobs += 1
        wildcards = {} if task is None else {"task": task} | ({"step": str(step)} if step else {})
        self.record("", LogEvent.JOB_INFO, jobid=self.jobs, rule_name=rule, wildcards=wildcards)
        return self.jobs

    def end(self, job: int) -> None:
        """A job ends well."""
        self.record("", LogEvent.JOB_FINISHED, job_id=job)
        self.record("", LogEvent.PROGRESS, done=job, total=10)

    def table(self) -> str:
        """The live table as it is now, which then goes."""
        console = Console(file=io.StringIO(), width=self.terminal.console.width)
        console.print(self.terminal.table())
        self.terminal.close()
        return console.file.getvalue()

    @property
    def text(self) -> str:
        """What was printed, without colours and movements of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.stream.getvalue())


def test_a_line_a_verdict(config: Config) -> None:
    run = Run(config)
    run.record("", LogEvent.WORKFLOW_STARTED)
    run.record("Building DAG of jobs...")
    for rule in ("propose", "evaluate", "select_best"):
        run.end(run.begin(rule, run.names[0], 4))
    run.terminal.close()
    lines = run.text.splitlines()
    assert "3 tasks, 12 steps, iterative agent, test-model (claude), judged on local" in lines[0]
    assert lines[1] == f"live page: {config.results}/live.html"
    assert len(lines) == 3
    assert re.fullmatch(
        rf"\d\d:\d\d:\d\d +10% {run.names[0]} 4/4 [A-Z_]+( [\d.]+x)?, best [\d.]+x of step \d, \$[\d.]+", lines[2]
    )


def test_a_failure_says_why_and_where(config: Config, tmp_path: Path) -> None:
    log = tmp_path / "propose.log"
    log.write_text("asking\nerror: the key was refused [bold]\n")
    run = Run(config)
    run.record("", LogEvent.WORKFLOW_STARTED)
    job = run.begin("propose", run.names[1], 2)
    for _ in range(2):
        run.record("", LogEvent.JOB_ERROR, logging.ERROR, jobid=job, rule_name="propose", log=[str(log)])
    run.record("RuleException:\nCalledProcessError in file x: a wall of text", level=logging.ERROR)
    run.record("Missing input files", level=logging.ERROR)
    run.terminal.close()
    told = f"{run.names[1]} propose of step 2 failed: the key was refused [bold] ({log})"
    assert run.text.count(told) == 1
    assert "wall of text" not in run.text and "Missing input files" in run.text
    page = (config.results / "live.html").read_text()
    assert "What failed" in page and "the key was refused" in page


def test_other_commands_have_snakemakes_own_lines(config: Config) -> None:
    """--report, --summary, ...: no workflow starts."""
    run = Run(config)
    run.record("Creating report...")
    assert run.text == "Creating report...\n"
    run.record("", LogEvent.WORKFLOW_STARTED)
    run.record("Nothing to be done (all requested files are present and up to date).")
    run.terminal.close()
    assert run.text.splitlines()[-1] == "Nothing to be done: all is there and up to date."
    assert not (config.results / "live.html").exists()


@pytest.mark.parametrize(("width", "wide"), [(80, False), (200, True)])
def test_the_live_table_fits(config: Config, width: int, wide: bool) -> None:
    run = Run(config, width)
    run.record("", LogEvent.WORKFLOW_STARTED)
    run.begin("propose", run.names[2], 3)
    assert run.terminal.live is not None
    lines = run.table().splitlines()
    assert max(map(len, lines)) <= width
    told = next(line for line in lines if run.names[2] in line)
    assert "4/4" in told and "x" in told and "$" in told
    assert ("asking the model of step 3" in told) == wide


def test_the_live_table_has_room_on_a_low_screen(tmp_path: Path) -> None:
    run = Run(make_run(tmp_path, tasks=30, steps=1, workloads=1), 80, height=20)
    run.record("", LogEvent.WORKFLOW_STARTED)
    run.begin("evaluate", run.names[29], 1)
    table = run.table()
    assert len(table.splitlines()) < 20
    assert run.names[29] in table and "more tasks" in table


def test_the_live_page_reloads_until_the_end(config: Config) -> None:
    run = Run(config)
    run.record("", LogEvent.WORKFLOW_STARTED)
    run.begin("evaluate", run.names[0], 2)
    page = (config.results / "live.html").read_text().replace("<wbr>", "")
    assert 'id="reload"' in page and "judging the kernel of step 2" in page
    assert "<polyline points=" in page and all(name in page for name in run.names)
    run.terminal.close()
    page = (config.results / "live.html").read_text()
    assert 'id="reload"' not in page and "Ended after" in page


def test_a_run_is_taken_up_where_it_was(config: Config) -> None:
    tasks = read_tasks(Path(config.tasks_path), config.dataset)
    monitor = Monitor.of(config, tasks)
    state = monitor.tasks[tasks[0].name]
    assert (state.done, state.last_step) == (4, 4)
    assert monitor.cost_usd > 0 and state.tokens > 0
    verdict = config.results / tasks[0].name / "step_4" / "evaluation.json"
    kept = verdict.read_bytes()
    verdict.unlink()
    assert Monitor.of(config, tasks).tasks[tasks[0].name].done == 3
    verdict.write_bytes(kept)


@pytest.mark.parametrize("asked", ["dryrun", "verbose", "printshellcmds", "debug_dag", "quiet", "logger", "job"])
def test_who_asks_for_other_lines_gets_them(config: Config, asked: str) -> None:
    logger = logging.Logger("test")
    own = logging.StreamHandler(io.StringIO())
    own.name = "other" if asked == "logger" else "DefaultStreamHandler"
    logger.addHandler(own)
    settings = {name: asked == name for name in ("dryrun", "verbose", "printshellcmds", "debug_dag")}
    output = SimpleNamespace(**settings, stdout=False, nocolor=False, quiet={"all"} if asked == "quiet" else None)
    workflow = SimpleNamespace(
        output_settings=output, logger_manager=SimpleNamespace(logger=logger), is_main_process=asked != "job"
    )
    watch_run(workflow, config, [])
    assert logger.handlers == [own]
    output.__dict__.update(dict.fromkeys(settings, False) | {"quiet": None})
    workflow.is_main_process, own.name = True, "DefaultStreamHandler"
    watch_run(workflow, config, [])
    assert isinstance(logger.handlers[0], Terminal)
    finish(workflow)
