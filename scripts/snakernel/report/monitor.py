"""The state of a run while it goes on, as the terminal and the live page show it.

It is told which job began and which ended, and reads of the run's files only what such a job wrote: a look at all files
of a large run would take longer than most jobs.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from snakernel.config import Config
from snakernel.dataset import Task
from snakernel.errors import UserError
from snakernel.files import read_json, read_text
from snakernel.search import create_strategy

DOING = {
    "check_task": "checking the definition",
    "measure_reference": "measuring the reference",
    "propose": "asking the model",
    "evaluate": "judging the kernel",
    "select_best": "selecting the best",
    "export_best": "exporting the best kernel",
}
EVENTS = 30
"""Verdicts and failures that the live page shows."""


@dataclass
class TaskState:
    """One task."""

    name: str
    planned: int
    speedups: dict[int, float | None] = field(default_factory=dict)
    """Of each step that has a verdict; None where the kernel was not correct."""
    skipped: set[int] = field(default_factory=set)
    """Steps that were not asked."""
    last_step: int | None = None
    last_status: str = ""
    spent: dict[str, tuple[float | None, int]] = field(default_factory=dict)
    """Price and tokens of each entry of the journal."""
    doing: dict[str, str] = field(default_factory=dict)
    """What goes on, by job."""
    failures: list[str] = field(default_factory=list)
    """What failed, with the log."""

    @property
    def done(self) -> int:
        """Steps that are done, skipped ones too."""
        return len(self.speedups) + len(self.skipped)

    @property
    def best(self) -> tuple[int, float] | None:
        """The best step and its speedup; of equal ones the earlier."""
        correct = {step: speedup for step, speedup in sorted(self.speedups.items()) if speedup is not None}
        return max(correct.items(), key=lambda one: one[1]) if correct else None

    @property
    def cost_usd(self) -> float | None:
        """Price of all answers; None where one is not known."""
        prices = [price for price, _ in self.spent.values()]
        return None if None in prices else sum(price for price in prices if price is not None)

    @property
    def tokens(self) -> int:
        """Tokens of all questions and answers."""
        return sum(tokens for _, tokens in self.spent.values())


@dataclass
class Event:
    """Something to tell."""

    time: float
    """Seconds since 1970."""
    task: str
    text: str
    failed: bool = False


@dataclass
class Monitor:
    """A run."""

    config: Config
    tasks: dict[str, TaskState]
    begun: float
    """When this call of the workflow began, in seconds since 1970."""
    jobs_done: int = 0
    jobs_planned: int = 0
    """Of this call of the workflow."""
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=EVENTS))
    ended: float | None = None

    @classmethod
    def of(cls, config: Config, tasks: list[Task]) -> Monitor:
        """Read what the run has reached before."""
        states = {}
        for task in tasks:
            state = TaskState(task.name, create_strategy(config, task.name).steps)
            for path in (config.results / "answers" / task.name).glob("[!.]*.json"):
                read_spent(state, path)
            for step in range(1, state.planned + 1):
                # A verdict that is about to be made again is still there, and is as good as the next one.
                read_verdict(state, config.results / task.name, step)
            states[task.name] = state
        return cls(config, states, time.time())

    @property
    def seconds_left(self) -> float | None:
        """At the rate of this call's jobs so far; None before there is one to speak of."""
        elapsed = time.time() - self.begun
        if self.jobs_done < 5 or elapsed < 5 or not self.jobs_planned:
            return None
        return elapsed / self.jobs_done * (self.jobs_planned - self.jobs_done)

    @property
    def cost_usd(self) -> float | None:
        """Price of all answers; None where one is not known."""
        costs = [task.cost_usd for task in self.tasks.values()]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    def job_begins(self, job: str, rule: str, task: str | None, step: int | None) -> None:
        """A job of a task begins."""
        if task in self.tasks and rule in DOING:
            number = f" of step {step}" if step else ""
            self.tasks[task].doing[job] = f"{DOING[rule]}{number}"

    def job_ends(self, job: str, rule: str, task: str | None, step: int | None) -> Event | None:
        """A job has ended well: what there is to tell of it, if anything."""
        state = self.tasks.get(task or "")
        if state is None:
            return None
        state.doing.pop(job, None)
        folder = self.config.results / state.name
        if rule == "measure_reference":
            return self._tell(state, "reference measured")
        if rule == "propose" and step is not None:
            read_spent(state, self.config.results / "answers" / state.name / f"{step}.json")
        if rule == "evaluate" and step is not None:
            read_verdict(state, folder, step)
            if step in state.skipped:
                return self._tell(state, f"{step}/{state.planned} not asked")
            if step in state.speedups:
                return self._tell(state, describe(state, step))
        return None

    def job_fails(self, job: str, rule: str, task: str | None, step: int | None, logs: list[str]) -> Event:
        """A job has failed: what its log says."""
        of = f" of step {step}" if step else ""
        text = f"{rule}{of} failed: {why(logs)}" + (f" ({logs[0]})" if logs else "")
        state = self.tasks.get(task or "")
        if state is not None:
            state.doing.pop(job, None)
            state.failures.append(text)
        event = Event(time.time(), task or "", text, failed=True)
        self.events.append(event)
        return event

    def _tell(self, state: TaskState, text: str) -> Event:
        event = Event(time.time(), state.name, text)
        self.events.append(event)
        return event


def describe(state: TaskState, step: int) -> str:
    """A verdict in one line."""
    speedup, best = state.speedups[step], state.best
    reached = f" {speedup:.3g}x" if speedup is not None else ""
    so_far = f", best {best[1]:.3g}x of step {best[0]}" if best else ", none correct yet"
    return f"{step}/{state.planned} {state.last_status}{reached}{so_far}, {money(state.cost_usd)}"


def money(cost: float | None) -> str:
    """An amount of money, short."""
    return "$?" if cost is None else f"${cost:.2f}"


def read_spent(state: TaskState, entry: Path) -> None:
    """Add an entry of the journal, where there is one."""
    try:
        values = read_json(entry)
        usage = values["usage"]
        state.spent[entry.name] = (values["cost_usd"], usage["input_tokens"] + usage["output_tokens"])
    except (UserError, KeyError):
        return


def read_verdict(state: TaskState, task_folder: Path, step: int) -> None:
    """Take over a step's verdict, where there is one."""
    path = task_folder / f"step_{step}" / "evaluation.json"
    if not path.exists():
        return
    try:
        values = read_json(path)
        status, speedup = values["status"], values["speedup"] if values["correct"] else None
    except (UserError, KeyError):
        return
    if status == "SKIPPED":
        state.skipped.add(step)
        state.speedups.pop(step, None)
        return
    state.skipped.discard(step)
    state.speedups[step] = speedup
    state.last_step, state.last_status = step, status


def why(logs: list[str]) -> str:
    """What the log of a failed job says: its last line that begins with "error:", else its last line."""
    for log in logs:
        try:
            lines = [line.strip() for line in read_text(log).splitlines() if line.strip()]
        except UserError:
            continue
        told = [line for line in lines if line.startswith("error: ")]
        if told or lines:
            return (told or lines)[-1].removeprefix("error: ")
    return "its log says nothing"
