"""A mixture of models: which one a step asks, drawn from a recorded seed, and what each has brought so far."""

from __future__ import annotations

from snakernel.config import Config
from snakernel.search.state import Attempt, ModelRecord, State


def choose(config: Config, state: State, seed: list[int]) -> tuple[str | None, dict[str, float]]:
    """The model that a step asks, and what each was drawn by; (None, {}) asks the one ``model_name``.

    ``weights`` draws by the shares of ``models``. ``bandit`` is Thompson sampling: for each model a gain is drawn from
    Beta(1 + gains, 1 + questions - gains), times its share, divided by its mean price; the highest is asked. A model
    that was not asked yet is taken to cost what the others do; where no price is known, all cost the same.
    """
    import numpy as np

    if not config.models:
        return None, {}
    random = np.random.default_rng([*seed, 1])
    names, shares = list(config.models), list(config.models.values())
    if config.model_choice == "weights":
        scores = {name: share / sum(shares) for name, share in zip(names, shares, strict=True)}
        return names[int(random.choice(len(names), p=list(scores.values())))], scores
    records = [state.models.get(name, ModelRecord()) for name in names]
    prices = [one.cost_usd / one.asked for one in records if one.asked and one.cost_usd]
    usual = sum(prices) / len(prices) if prices else 1.0
    scores = {}
    for name, share, one in zip(names, shares, records, strict=True):
        drawn = random.beta(1 + one.gains, 1 + max(0.0, one.asked - one.gains))
        scores[name] = share * drawn / (one.cost_usd / one.asked if one.asked and one.cost_usd else usual)
    return max(scores, key=scores.__getitem__), scores


def record(models: dict[str, ModelRecord], best: Attempt | None, attempt: Attempt) -> dict[str, ModelRecord]:
    """What models have brought, an attempt included; ``best`` is the best before it.

    A gain is the part of the best latency that the attempt saved: 1 - old / new speedup; the first correct kernel is
    one whole gain.
    """
    if attempt.model is None:
        return models
    before = models.get(attempt.model, ModelRecord())
    old = best.speedup if best is not None and best.correct else 0.0
    gain = max(0.0, 1 - old / attempt.speedup) if attempt.correct and attempt.speedup > 0 else 0.0
    after = ModelRecord(
        asked=before.asked + 1,
        cost_usd=before.cost_usd + (attempt.cost_usd or 0.0),
        gains=before.gains + gain,
    )
    return models | {attempt.model: after}
