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
from snakernel.search.tunables import Tunables, Value, suggest

Role = Literal["proposer", "tuner", "sweep"]


class Strategy:
    """A search. Subclasses say what a step shows and what an island learns of a round; all of it is pure."""

    agent_type: ClassVar[str]

    def __init__(self, config: Config, task: str):
        """``task`` is part of the seed of every draw."""
        self.config, self.task = config, task

    @property
    def asked(self) -> int:
        """Steps of a lane in one round that ask a model."""
        return 1

    @property
    def shape(self) -> Shape:
        """Which step is what. What is asked is followed by ``sweep_steps`` that ask nobody."""
        config = self.config
        depth = self.asked + config.sweep_steps
        return Shape(config.islands, config.parallel_proposals, depth, config.migrate_every)

    @property
    def steps(self) -> int:
        """How many steps a task has."""
        return self.config.total_steps * self.shape.depth

    def reads(self, step: int) -> int:
        """The earlier step whose state the prompt of ``step`` is made of; 0 is the empty state."""
        return self.shape.reads(step)

    def kernels_read(self, step: int) -> range:
        """The steps that must have their kernels before ``step`` gets its own."""
        needed = self.tunes(step) or self.config.reject_duplicates
        return self.shape.kernels_read(step) if needed else range(0)

    def sweeps(self, step: int) -> bool:
        """Whether ``step`` asks no model, but tries other values of what its lane's best kernel declares as tunable."""
        return self.shape.level(step) >= self.asked

    def tunes(self, step: int) -> bool:
        """Whether ``step`` may be made of an earlier kernel. Known before anything ran."""
        raise NotImplementedError

    def start(self) -> State:
        """The empty state."""
        return State(agent_type=self.agent_type, task=self.task, islands=[Island()] * self.shape.islands)

    def role(self, step: int, state: State) -> Role:
        """The prompt template of ``step``: as long as there is no kernel to edit, a new one is asked for."""
        if self.sweeps(step):
            return "sweep"
        return "proposer" if self.base(step, state) is None else "tuner"

    def base(self, step: int, state: State) -> int | None:
        """The step whose kernel ``step`` is made of; None asks for a new one."""
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

    def lane(self, step: int, state: State) -> list[Attempt]:
        """The attempts of a step's lane in its round, before it."""
        if self.shape.level(step) == 0:
            return []
        lane = self.shape.lane(step)
        return [one for one in state.round if self.shape.lane(one.step) == lane]

    def champions(self, attempts: list[Attempt]) -> list[Attempt]:
        """The best of each lane, trials included, of the attempts of a round."""
        lanes: dict[int, list[Attempt]] = {}
        for one in attempts:
            lanes.setdefault(self.shape.lane(one.step), []).append(one)
        return [best for best in map(best_of, lanes.values()) if best is not None]

    def swept(self, step: int, state: State) -> int | None:
        """The step whose kernel a sweep tries other values of: the lane's best of those that a model wrote."""
        written = [one for one in self.lane(step, state) if one.has_kernel and not self.sweeps(one.step)]
        best = best_of(written)
        return best.kernel if best else None

    def trials(self, step: int, state: State) -> list[Attempt]:
        """What the lane's sweep has tried, and the kernel that it tries others of."""
        lane = self.lane(step, state)
        return [one for one in lane if self.sweeps(one.step) or one.step == self.swept(step, state)]

    def suggest(self, step: int, tunables: Tunables, tried: list[Attempt]) -> dict[str, Value] | None:
        """The values that a trial takes; None where all were tried. Parallel trials of a kernel take different ones."""
        told = [(one.parameters, one.speedup if one.correct else 0.0) for one in tried if one.parameters is not None]
        seed = zlib.crc32(repr(self.seed(self.reads(step))).encode())
        return suggest(tunables, told, seed, self.ahead(step))

    def ahead(self, step: int) -> int:
        """The trials of the same kernel that are chosen from the same state and come before that of ``step``."""
        return 0

    def update(self, state: State, attempt: Attempt) -> State:
        """The state after an attempt; ``state`` is that after the step before it."""
        step, shape = attempt.step, self.shape
        # The step that opens the round may not have been asked.
        done = [*(one for one in state.round if shape.round(one.step) == shape.round(step)), attempt]
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
