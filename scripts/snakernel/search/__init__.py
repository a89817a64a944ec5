"""How the search goes from one step to the next: one strategy a file, chosen by ``agent_type``."""

from __future__ import annotations

from snakernel.config import Config
from snakernel.search.evolve import Evolve
from snakernel.search.iterative import Iterative
from snakernel.search.shape import Shape
from snakernel.search.state import Attempt, Draw, Island, ModelRecord, Plan, State
from snakernel.search.strategy import Strategy
from snakernel.search.sweep import Sweep

__all__ = [
    "Attempt",
    "Draw",
    "Evolve",
    "Island",
    "Iterative",
    "ModelRecord",
    "Plan",
    "Shape",
    "State",
    "Strategy",
    "Sweep",
    "create_strategy",
]


def create_strategy(config: Config, task: str) -> Strategy:
    """The strategy that a configuration names, for one task (whose name is part of the seed of every draw)."""
    return {"iterative": Iterative, "evolve": Evolve, "sweep": Sweep}[config.agent_type](config, task)
