"""The evolving agent: every proposal is written from a pool of earlier kernels, recent ones and drawn good ones."""

from __future__ import annotations

import zlib
from typing import Literal

from snakernel.config import Config
from snakernel.search.state import Attempt, Draw, State, better


class Evolve:
    """A proposal is followed by ``refine_steps`` steps that tune it; then the next is proposed from the pool."""

    def __init__(self, config: Config, task: str):
        self.config, self.task = config, task

    @property
    def steps(self) -> int:
        """``total_steps`` proposals, each with its refinements."""
        return self.config.total_steps * self._round

    @property
    def _round(self) -> int:
        return 1 + self.config.refine_steps

    def reads(self, step: int) -> int:
        """Each step starts from the one before it."""
        return step - 1

    def tunes(self, step: int) -> bool:
        """The refinements."""
        return not self._proposes(step)

    def start(self) -> State:
        """The empty state."""
        return State(agent_type="evolve", task=self.task)

    def role(self, step: int, state: State) -> Literal["proposer", "tuner"]:
        """The first step of a round proposes; the others tune, as soon as the round has a kernel."""
        return "tuner" if self.tunes(step) and state.base is not None else "proposer"

    def shown(self, step: int, state: State) -> list[Attempt]:
        """A proposal is shown the pool, elite then recent; a refinement the attempts of its own round."""
        if self._proposes(step):
            return [*state.elite, *state.recent]
        return state.memory[-self.config.max_memory_round :] if self.config.max_memory_round else []

    def update(self, state: State, attempt: Attempt) -> State:
        """Take a round's best as its proposal; at the round's end draw the pool of the next prompt."""
        first = self._proposes(attempt.step)
        memory = [attempt] if first else [*state.memory, attempt]
        proposals = state.proposals if first else state.proposals[:-1]
        champion = attempt if first else better(state.proposals[-1], attempt)
        state = state.model_copy(
            update={
                "step": attempt.step,
                "best": better(state.best, attempt),
                "base": attempt.step if attempt.has_kernel else (None if first else state.base),
                "memory": memory,
                "proposals": [*proposals, champion],
            }
        )
        return self._with_pool(state) if self._proposes(attempt.step + 1) else state

    def _proposes(self, step: int) -> bool:
        return (step - 1) % self._round == 0

    def _with_pool(self, state: State) -> State:
        """Half of the pool is recent; the rest is drawn without replacement from the correct ones not among those."""
        import numpy as np

        half = self.config.pool_size // 2
        recent = state.proposals[-half:] if half else []
        correct = [one for one in state.proposals if one.correct and one not in recent]
        wanted = min(self.config.pool_size - half, len(correct))
        draw, elite = None, []
        if wanted:
            speedups = np.array([one.speedup for one in correct])
            weights = np.exp((speedups - speedups.max()) / max(self.config.softmax_temperature, 1e-6))
            seed = [self.config.seed, zlib.crc32(self.task.encode()), state.step]
            # Gumbel's trick draws without replacement by softmax probabilities, also where some underflow to zero.
            noise = np.random.default_rng(seed).gumbel(size=len(correct))
            keys = (speedups - speedups.max()) / max(self.config.softmax_temperature, 1e-6) + noise
            drawn = sorted(np.argsort(-keys, kind="stable")[:wanted])
            elite = sorted((correct[index] for index in drawn), key=lambda one: one.score, reverse=True)
            draw = Draw(
                seed=seed,
                candidates=[one.step for one in correct],
                probabilities=[float(weight) for weight in weights / weights.sum()],
            )
        return state.model_copy(update={"recent": recent, "elite": elite, "draw": draw})
