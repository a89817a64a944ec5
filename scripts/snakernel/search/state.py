"""The state of a search after a step: best.json. It names steps; their kernels and verdicts are in their folders."""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from snakernel.config import Config


class Attempt(BaseModel):
    """One step as the search sees it."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

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

    @property
    def score(self) -> tuple[int, int, float]:
        """What attempts are compared by: (0,0,0) not compiled, (1,0,0) wrong, (1,1,speedup) correct."""
        if not self.compiled:
            return (0, 0, 0.0)
        return (1, 1, self.speedup) if self.correct else (1, 0, 0.0)


class Draw(BaseModel):
    """How a pool was drawn, so that anyone can check it."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    seed: list[int]
    """The entropy of the random generator: the configured seed, the task's name as a number, the step."""
    candidates: list[int]
    """The correct steps that could be drawn."""
    probabilities: list[float]
    """The probability of each to be drawn first."""


class State(BaseModel):
    """best.json: what the search knows after a step, and what the next prompt shows."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    format_version: int = 1
    """Version of this file's format."""
    agent_type: str
    """The strategy that made this state."""
    task: str
    """The task."""
    step: int = 0
    """The last step that this state holds; 0 before the first."""
    best: Attempt | None = None
    """The best attempt so far; of equal ones the earlier."""
    base: int | None = None
    """The step whose kernel the next tuning step edits; None where there is no kernel yet."""
    memory: list[Attempt] = Field(default_factory=list)
    """iterative: the last attempts, oldest first. evolve: the attempts at the current proposal."""
    proposals: list[Attempt] = Field(default_factory=list)
    """evolve: every proposal so far, each as the best of its refinements, oldest first."""
    elite: list[Attempt] = Field(default_factory=list)
    """evolve: the part of the next prompt's pool that was drawn from the correct ones, best first."""
    recent: list[Attempt] = Field(default_factory=list)
    """evolve: the part of the next prompt's pool that is simply the last ones, oldest first."""
    draw: Draw | None = None
    """evolve: how the elite was drawn."""
    stopped: str | None = None
    """Why the search goes no further, where it does not: no step that starts from this state is asked."""
    skipped: str | None = None
    """Why ``step`` was not asked, where it was not: the rest is the state that it started from."""


class Strategy(Protocol):
    """A search: which earlier state a step starts from, and how a verdict changes the state. Both are pure."""

    def __init__(self, config: Config, task: str): ...

    @property
    def steps(self) -> int:
        """How many steps a task has."""
        ...

    def reads(self, step: int) -> int:
        """The earlier step whose state ``step`` starts from; 0 is the empty state. Known before anything ran."""
        ...

    def tunes(self, step: int) -> bool:
        """Whether ``step`` may edit the kernel of the step that it reads. Known before anything ran."""
        ...

    def start(self) -> State:
        """The empty state."""
        ...

    def role(self, step: int, state: State) -> Literal["proposer", "tuner"]:
        """The prompt template of ``step``, which starts from ``state``."""
        ...

    def shown(self, step: int, state: State) -> list[Attempt]:
        """The attempts that the prompt of ``step`` shows, in the order in which it shows them."""
        ...

    def update(self, state: State, attempt: Attempt) -> State:
        """The state after an attempt."""
        ...


def better(best: Attempt | None, attempt: Attempt) -> Attempt:
    """The better of two: a strictly greater score wins, the earlier one keeps a tie."""
    return attempt if best is None or attempt.score > best.score else best
