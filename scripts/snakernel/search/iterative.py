"""The iterative agent: one proposal, then edits of the last kernel, with a memory of the last attempts."""

from __future__ import annotations

from typing import Literal

from snakernel.config import Config
from snakernel.search.state import Attempt, State, better


class Iterative:
    """Step 1 proposes, every later step tunes the kernel of the step before it."""

    def __init__(self, config: Config, task: str):
        self.config, self.task = config, task

    @property
    def steps(self) -> int:
        """How many steps a task has."""
        return self.config.total_steps

    def reads(self, step: int) -> int:
        """Each step starts from the one before it."""
        return step - 1

    def tunes(self, step: int) -> bool:
        """All but the first."""
        return step > 1

    def start(self) -> State:
        """The empty state."""
        return State(agent_type="iterative", task=self.task)

    def role(self, step: int, state: State) -> Literal["proposer", "tuner"]:
        """Edits need a kernel: as long as no answer held one, a new proposal is asked for."""
        return "proposer" if state.base is None else "tuner"

    def shown(self, step: int, state: State) -> list[Attempt]:
        """The memory, oldest first."""
        return state.memory

    def update(self, state: State, attempt: Attempt) -> State:
        """Remember the last ``max_memory_round`` attempts; edits go onto the last kernel, not onto the best."""
        kept = state.memory
        if attempt.correct or not self.config.filter_wrong_attempts:
            kept = [*kept, attempt]
        rounds = self.config.max_memory_round
        return state.model_copy(
            update={
                "step": attempt.step,
                "best": better(state.best, attempt),
                "base": attempt.step if attempt.has_kernel else state.base,
                "memory": kept[-rounds:] if rounds else [],
            }
        )
