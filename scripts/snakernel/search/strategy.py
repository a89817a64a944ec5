"""What all searches share: a step reads an earlier state and shows it to a model; its verdict is folded into the next.

``reads`` is what a step's prompt starts from: with parallel proposals, several steps read the same state. The states
themselves are one chain, whatever the shape: the state after step n is the state after n - 1 and the verdict of n. So
a state holds all steps up to its own, in the order of their numbers and not of the ends of their jobs.
"""

from __future__ import annotations

import zlib
from typing import ClassVar, Literal

from snakernel.config import Config
from snakernel.search.models import record
from snakernel.search.shape import Shape
from snakernel.search.state import Attempt, Island, State, best_of, better

Role = Literal["proposer", "tuner"]


class Strategy:
    """A search. Subclasses say what a step shows and what an island learns of a round; all of it is pure."""

    agent_type: ClassVar[str]

    def __init__(self, config: Config, task: str):
        """``task`` is part of the seed of every draw."""
        self.config, self.task = config, task
        self.shape = Shape(config.islands, config.parallel_proposals, self.depth, config.migrate_every)

    @property
    def depth(self) -> int:
        """Steps of a lane in one round."""
        return 1

    @property
    def steps(self) -> int:
        """How many steps a task has."""
        return self.config.total_steps * self.depth

    def reads(self, step: int) -> int:
        """The earlier step whose state the prompt of ``step`` is made of; 0 is the empty state."""
        return self.shape.reads(step)

    def kernels_read(self, step: int) -> range:
        """The steps that must have their kernels before ``step`` gets its own."""
        needed = self.tunes(step) or self.config.reject_duplicates
        return self.shape.kernels_read(step) if needed else range(0)

    def tunes(self, step: int) -> bool:
        """Whether ``step`` may edit an earlier kernel. Known before anything ran."""
        raise NotImplementedError

    def start(self) -> State:
        """The empty state."""
        return State(agent_type=self.agent_type, task=self.task, islands=[Island()] * self.shape.islands)

    def role(self, step: int, state: State) -> Role:
        """The prompt template of ``step``: as long as there is no kernel to edit, a new one is asked for."""
        return "proposer" if self.base(step, state) is None else "tuner"

    def base(self, step: int, state: State) -> int | None:
        """The step whose kernel ``step`` edits; None asks for a new one."""
        raise NotImplementedError

    def shown(self, step: int, state: State) -> list[Attempt]:
        """The attempts that the prompt of ``step`` shows, in the order in which it shows them."""
        raise NotImplementedError

    def grow(self, island: Island, attempts: list[Attempt], step: int) -> Island:
        """What an island knows after the attempts of its round, which ended with ``step``."""
        raise NotImplementedError

    def welcome(self, island: Island, immigrant: Attempt, step: int) -> Island:
        """An island that another one's best has come to, at the end of the round of ``step``."""
        raise NotImplementedError

    def update(self, state: State, attempt: Attempt) -> State:
        """The state after an attempt; ``state`` is that after the step before it."""
        step, shape = attempt.step, self.shape
        done = [attempt] if shape.opens_round(step) else [*state.round, attempt]
        islands = list(state.islands)
        if shape.closes_island(step):
            number = shape.island(step)
            own = [one for one in done if shape.island(one.step) == number]
            best = best_of([*filter(None, [islands[number].best]), *own])
            islands[number] = self.grow(islands[number].model_copy(update={"best": best}), own, step)
        if shape.migrates_after(step):
            islands = self._migrate(islands, step)
        tells = self.config.planner and attempt.plan is not None
        best = better(state.best, attempt)
        return state.model_copy(
            update={
                "step": step,
                "best": best,
                "round": done,
                "islands": islands,
                "ideas": [*state.ideas, attempt] if tells else state.ideas,
                "models": record(state.models, state.best, attempt),
                "stopped": state.stopped or self._stops(step, best),
            }
        )

    def _stops(self, step: int, best: Attempt) -> str | None:
        """Why nothing needs to be asked after a step; None where the search goes on."""
        target, patience = self.config.stop_at_speedup, self.config.patience
        if target is not None and best.correct and best.speedup >= target:
            return f"step {best.step} has a speedup of {best.speedup:.3g}, and stop_at_speedup is {target:g}"
        if patience is not None and step - best.step >= patience:
            return f"nothing was better than step {best.step} in {step - best.step} steps, and patience is {patience}"
        return None

    def _migrate(self, islands: list[Island], step: int) -> list[Island]:
        """Each island's best goes to the next one, in a ring, where it is correct and better than what is there."""
        settled = []
        for island, neighbour in zip(islands, [islands[-1], *islands[:-1]], strict=True):
            comes = neighbour.best
            if comes is not None and comes.correct and better(island.best, comes) is comes:
                island = self.welcome(island.model_copy(update={"best": comes}), comes, step)
            settled.append(island)
        return settled

    def seed(self, step: int) -> list[int]:
        """The entropy of what is drawn at a step."""
        return [self.config.seed, zlib.crc32(self.task.encode()), step]
