"""The state of a search after a step: best.json. It names steps; their kernels and verdicts are in their folders."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from snakernel.files import migration


class Model(BaseModel):
    """Fields are described below each, and a field that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Plan(Model):
    """What an answer says that it is about to do."""

    bottleneck: str
    """What limits the kernel so far."""
    idea: str
    """What is done about it."""


class Attempt(Model):
    """One step as the search sees it."""

    step: int
    """The step that made the kernel."""
    compiled: bool
    """It could be built."""
    correct: bool
    """Every workload passed."""
    speedup: float
    """Arithmetic mean over workloads of reference latency / latency; 0 unless correct."""
    has_kernel: bool = True
    """The answer held a kernel at all."""
    base: int | None = None
    """The step whose kernel was edited."""
    duplicate_of: int | None = None
    """The earlier step that has the same program, where duplicates are rejected."""
    plan: Plan | None = None
    """What the answer wanted to do."""
    parameters: dict[str, bool | int | float | str] | None = None
    """sweep: the values of the tunables that were tried."""
    model: str | None = None
    """The model that was asked, where there is a choice."""
    cost_usd: float | None = None
    """Price of the answer in US dollars, where there is a choice and it is known."""

    @property
    def kernel(self) -> int | None:
        """The step that holds the kernel: of the same program the one that was judged."""
        return (self.duplicate_of or self.step) if self.has_kernel else None

    @property
    def score(self) -> tuple[int, int, float]:
        """What attempts are compared by: (0,0,0) not compiled, (1,0,0) wrong, (1,1,speedup) correct."""
        if not self.compiled:
            return (0, 0, 0.0)
        return (1, 1, self.speedup) if self.correct else (1, 0, 0.0)


class ModelRecord(Model):
    """What one of several models has brought."""

    asked: int = 0
    """Questions that have a verdict."""
    cost_usd: float = 0.0
    """Price of their answers in US dollars."""
    gains: float = 0.0
    """Sum of the parts of the best latency that they saved, each from 0 to 1."""


class Draw(Model):
    """How a pool was drawn, so that anyone can check it."""

    seed: list[int]
    """The entropy of the random generator: the configured seed, the task's name as a number, the step, the island."""
    candidates: list[int]
    """The correct steps that could be drawn."""
    probabilities: list[float]
    """The probability of each to be drawn first."""


class Island(Model):
    """One of the searches that go on beside each other, as it was when its last round ended."""

    best: Attempt | None = None
    """Its best attempt, immigrants included."""
    base: int | None = None
    """iterative: the step whose kernel is edited next; None where there is no kernel yet."""
    memory: list[Attempt] = Field(default_factory=list)
    """iterative: the last attempts, oldest first. sweep: all trials."""
    proposals: list[Attempt] = Field(default_factory=list)
    """evolve: every proposal so far, each as the best of its refinements, oldest first."""
    immigrants: list[Attempt] = Field(default_factory=list)
    """evolve: the best of another island, as they came; the elite is drawn from them too."""
    elite: list[Attempt] = Field(default_factory=list)
    """evolve: the part of the next prompt's pool that was drawn from the correct ones, best first."""
    recent: list[Attempt] = Field(default_factory=list)
    """evolve: the part of the next prompt's pool that is simply the last ones, oldest first."""
    draw: Draw | None = None
    """evolve: how the elite was drawn."""


class State(Model):
    """best.json: what the search knows after a step, and what the next prompts show."""

    format_version: int = 2
    """Version of this file's format."""
    agent_type: str
    """The strategy that made this state."""
    task: str
    """The task."""
    step: int = 0
    """The last step that this state holds; it holds all up to this one. 0 before the first."""
    best: Attempt | None = None
    """The best attempt so far; of equal ones the earlier."""
    round: list[Attempt] = Field(default_factory=list)
    """The attempts of the last step's round, in their order."""
    islands: list[Island]
    """The islands; most searches have one."""
    ideas: list[Attempt] = Field(default_factory=list)
    """planner: every attempt that named an idea, oldest first."""
    models: dict[str, ModelRecord] = Field(default_factory=dict)
    """models: what each has brought."""
    stopped: str | None = None
    """Why the search goes no further, where it does not: no step that starts from this state is asked."""
    skipped: str | None = None
    """Why ``step`` was not asked, where it was not: the rest is the state that it started from."""


@migration(State, 1)
def _with_one_island(values: dict[str, Any]) -> dict[str, Any]:
    """Before there were islands, what is theirs now was the state's own."""
    moved = ("base", "memory", "proposals", "elite", "recent", "draw")
    island = {"best": values.get("best")} | {name: values.pop(name) for name in moved if name in values}
    memory = island.get("memory", [])
    if values["agent_type"] == "evolve":
        # It was the round of the current proposal.
        island |= {"base": None, "memory": []}
        return values | {"round": memory, "islands": [island]}
    return values | {"round": memory[-1:], "islands": [island]}


def better(best: Attempt | None, attempt: Attempt) -> Attempt:
    """The better of two: a strictly greater score wins, the earlier one keeps a tie."""
    return attempt if best is None or attempt.score > best.score else best


def best_of(attempts: list[Attempt]) -> Attempt | None:
    """The best of attempts; of equal ones the first."""
    return max(attempts, key=lambda one: one.score, default=None)
