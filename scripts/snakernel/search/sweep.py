"""The parameter sweep: no model is asked; each step tries other values of what a given kernel declares as tunable."""

from __future__ import annotations

from snakernel.search.shape import Shape
from snakernel.search.state import Attempt, Island, State
from snakernel.search.strategy import Strategy


class Sweep(Strategy):
    """Step 1 is the kernel of ``sweep_path`` as it is; every later one is that kernel with other values."""

    agent_type = "sweep"

    @property
    def shape(self) -> Shape:
        """Parallel trials, but no islands: all trials are told to one optimiser."""
        return Shape(width=self.config.parallel_proposals)

    def sweeps(self, step: int) -> bool:
        """All of them."""
        return True

    def tunes(self, step: int) -> bool:
        """All rounds but the first."""
        return self.shape.round(step) > 0

    def kernels_read(self, step: int) -> range:
        """The given kernel, which is that of step 1."""
        return range(1, 2) if self.tunes(step) else range(0)

    def base(self, step: int, state: State) -> int | None:
        """The given kernel."""
        return 1 if self.tunes(step) else None

    def ahead(self, step: int) -> int:
        """Those of the same round; the first of the first round is not chosen."""
        lane = self.shape.lane(step)
        return lane if self.tunes(step) else max(0, lane - 1)

    def shown(self, step: int, state: State) -> list[Attempt]:
        """All trials, oldest first."""
        return state.islands[0].memory

    def grow(self, island: Island, attempts: list[Attempt], step: int) -> Island:
        """Remember all trials."""
        return island.model_copy(update={"memory": [*island.memory, *attempts]})
