"""The evolving agent: every proposal is written from a pool of earlier kernels, recent ones and drawn good ones."""

from __future__ import annotations

from snakernel.search.state import Attempt, Draw, Island, State
from snakernel.search.strategy import Strategy


class Evolve(Strategy):
    """A proposal is followed by ``refine_steps`` steps that tune it; then the next is proposed from the pool."""

    agent_type = "evolve"

    @property
    def asked(self) -> int:
        """A proposal and its refinements."""
        return 1 + self.config.refine_steps

    def tunes(self, step: int) -> bool:
        """The refinements, and every sweep."""
        return self.shape.level(step) > 0

    def base(self, step: int, state: State) -> int | None:
        """A refinement edits the last kernel of its lane."""
        if self.sweeps(step):
            return self.swept(step, state)
        kernels = [one.kernel for one in self.lane(step, state) if one.has_kernel]
        return kernels[-1] if kernels else None

    def shown(self, step: int, state: State) -> list[Attempt]:
        """A proposal is shown the pool, elite then recent; a refinement the attempts of its own lane."""
        if self.sweeps(step):
            return self.trials(step, state)
        if self.tunes(step):
            rounds = self.config.max_memory_round
            return self.lane(step, state)[-rounds:] if rounds else []
        island = state.islands[self.shape.island(step)]
        return [*island.elite, *island.recent]

    def grow(self, island: Island, attempts: list[Attempt], step: int) -> Island:
        """Take the best of each lane as its proposal, and draw the pool of the next prompts."""
        proposals = [*island.proposals, *self.champions(attempts)]
        return self._with_pool(island.model_copy(update={"proposals": proposals}), step)

    def welcome(self, island: Island, immigrant: Attempt, step: int) -> Island:
        """The immigrant can be drawn from now on."""
        return self._with_pool(island.model_copy(update={"immigrants": [*island.immigrants, immigrant]}), step)

    def _with_pool(self, island: Island, step: int) -> Island:
        """Half of the pool is recent; the rest is drawn without replacement from the correct ones not among those."""
        import numpy as np

        half = self.config.pool_size // 2
        recent = island.proposals[-half:] if half else []
        correct = [one for one in [*island.proposals, *island.immigrants] if one.correct and one not in recent]
        wanted = min(self.config.pool_size - half, len(correct))
        draw, elite = None, []
        if wanted:
            speedups = np.array([one.speedup for one in correct])
            logits = (speedups - speedups.max()) / max(self.config.softmax_temperature, 1e-6)
            seed = [*self.seed(step), self.shape.island(step)]
            # Gumbel's trick draws without replacement by softmax probabilities, also where some underflow to zero.
            keys = logits + np.random.default_rng(seed).gumbel(size=len(correct))
            drawn = sorted(np.argsort(-keys, kind="stable")[:wanted])
            elite = sorted((correct[index] for index in drawn), key=lambda one: one.score, reverse=True)
            weights = np.exp(logits)
            draw = Draw(
                seed=seed,
                candidates=[one.step for one in correct],
                probabilities=[float(weight) for weight in weights / weights.sum()],
            )
        return island.model_copy(update={"recent": recent, "elite": elite, "draw": draw})
