"""The iterative agent: one proposal, then edits of the last kernel, with a memory of the last attempts."""

from __future__ import annotations

from snakernel.search.state import Attempt, Island, State, best_of
from snakernel.search.strategy import Strategy


class Iterative(Strategy):
    """The first round proposes, every later one tunes the kernel of the round before it."""

    agent_type = "iterative"

    def tunes(self, step: int) -> bool:
        """All rounds but the first, and every sweep."""
        return self.shape.round(step) > 0 or self.sweeps(step)

    def base(self, step: int, state: State) -> int | None:
        """The island's last kernel, or its best one."""
        return self.swept(step, state) if self.sweeps(step) else state.islands[self.shape.island(step)].base

    def shown(self, step: int, state: State) -> list[Attempt]:
        """The memory, oldest first."""
        return self.trials(step, state) if self.sweeps(step) else state.islands[self.shape.island(step)].memory

    def grow(self, island: Island, attempts: list[Attempt], step: int) -> Island:
        """Remember the last ``max_memory_round`` attempts. Edits go onto the last kernel, of parallel ones onto the
        best of them; or, by ``tune_from``, onto the best of all as soon as one is correct."""
        tried = self.champions(attempts)
        last = best_of([one for one in tried if one.has_kernel])
        if self.config.tune_from == "best" and island.best is not None and island.best.correct:
            last = island.best
        kept = [one for one in tried if one.correct or not self.config.filter_wrong_attempts]
        rounds = self.config.max_memory_round
        return island.model_copy(
            update={
                "base": last.kernel if last else island.base,
                "memory": [*island.memory, *kept][-rounds:] if rounds else [],
            }
        )

    def welcome(self, island: Island, immigrant: Attempt, step: int) -> Island:
        """Edits go onto the immigrant."""
        return island.model_copy(update={"base": immigrant.step})
