"""The rules of the search, which are those of the contest's agent baseline."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from snakernel.config import load_config
from snakernel.search import Attempt, State, create_strategy


def attempt(step: int, speedup: float | None = 1.0, *, compiled: bool = True, has_kernel: bool = True) -> Attempt:
    """An attempt; a speedup of None is a wrong kernel."""
    return Attempt(
        step=step, compiled=compiled, correct=speedup is not None, speedup=speedup or 0.0, has_kernel=has_kernel
    )


def run(strategy, attempts: list[Attempt]) -> State:
    """The state after attempts."""
    state = strategy.start()
    for one in attempts:
        state = strategy.update(state, one)
    return state


def iterative(**keys):
    return create_strategy(load_config({"agent_type": "iterative", **keys}), "norm_rmsnorm")


def evolve(**keys):
    return create_strategy(load_config({"agent_type": "evolve", **keys}), "norm_rmsnorm")


def test_scores() -> None:
    assert attempt(1, compiled=False, speedup=None).score == (0, 0, 0.0)
    assert attempt(1, None).score == (1, 0, 0.0)
    assert attempt(1, 2.5).score == (1, 1, 2.5)


def test_best_is_strictly_greater_and_the_earlier_keeps_a_tie() -> None:
    assert run(iterative(), [attempt(1, 1.5), attempt(2, 1.5)]).best.step == 1
    assert run(iterative(), [attempt(1, 1.5), attempt(2, 1.51)]).best.step == 2
    assert run(iterative(), [attempt(1, None), attempt(2, None)]).best.step == 1
    assert run(iterative(), [attempt(1, None, compiled=False), attempt(2, None)]).best.step == 2
    assert run(iterative(), [attempt(1, 0.1), attempt(2, None)]).best.step == 1


def test_step_1_proposes_and_later_steps_tune_the_last_kernel_not_the_best() -> None:
    strategy = iterative()
    assert strategy.role(1, strategy.start()) == "proposer"
    state = run(strategy, [attempt(1, 3.0), attempt(2, 1.0)])
    assert strategy.role(3, state) == "tuner"
    assert (state.base, state.best.step) == (2, 1)


def test_without_a_kernel_a_new_proposal_is_asked_for() -> None:
    strategy = iterative()
    state = run(strategy, [attempt(1, None, compiled=False, has_kernel=False)])
    assert strategy.role(2, state) == "proposer"


def test_a_tuning_answer_without_a_kernel_keeps_the_base() -> None:
    assert run(iterative(), [attempt(1), attempt(2, None, has_kernel=False)]).base == 1


@pytest.mark.parametrize(("rounds", "remembered"), [(5, [3, 4, 5, 6, 7]), (2, [6, 7]), (0, []), (9, list(range(1, 8)))])
def test_memory_is_the_last_rounds_wrong_ones_too(rounds: int, remembered: list[int]) -> None:
    strategy = iterative(max_memory_round=rounds)
    state = run(strategy, [attempt(step, None if step % 2 else 1.0) for step in range(1, 8)])
    assert [one.step for one in strategy.shown(8, state)] == remembered


def test_wrong_attempts_can_be_left_out_of_the_memory() -> None:
    strategy = iterative(filter_wrong_attempts=True)
    state = run(strategy, [attempt(step, None if step % 2 else 1.0) for step in range(1, 8)])
    assert [one.step for one in strategy.shown(8, state)] == [2, 4, 6]


def test_evolve_recent_half_and_elite_from_the_correct_rest() -> None:
    strategy = evolve(pool_size=5)
    state = run(strategy, [attempt(step, None if step in (2, 5) else float(step)) for step in range(1, 8)])
    assert [one.step for one in state.recent] == [6, 7]
    assert {one.step for one in state.elite} == {1, 3, 4}
    assert [one.step for one in strategy.shown(8, state)] == [4, 3, 1, 6, 7]


def test_evolve_shows_no_elite_while_nothing_is_correct() -> None:
    state = run(evolve(pool_size=6), [attempt(step, None) for step in range(1, 6)])
    assert (state.elite, state.draw) == ([], None)
    assert [one.step for one in state.recent] == [3, 4, 5]


def test_evolve_pool_of_one_is_all_elite() -> None:
    state = run(evolve(pool_size=1), [attempt(1, 1.0), attempt(2, 1.0)])
    assert state.recent == []
    assert len(state.elite) == 1


def test_elite_is_sorted_by_score_and_stable() -> None:
    state = run(evolve(pool_size=6), [attempt(step, 2.0) for step in range(1, 4)] + [attempt(4, None)] * 3)
    assert [one.step for one in state.elite] == [1, 2, 3]


def test_elite_is_drawn_by_softmax_of_speedup() -> None:
    """The first draw's frequencies over seeds are within four standard errors of the softmax."""
    speedups, temperature, trials = [1.0, 1.5, 2.0], 0.5, 4000
    weights = [math.exp(speedup / temperature) for speedup in speedups]
    counts: Counter[int] = Counter()
    for seed in range(trials):
        strategy = evolve(pool_size=2, softmax_temperature=temperature, seed=seed)
        state = run(strategy, [attempt(step, speedup) for step, speedup in enumerate(speedups, 1)] + [attempt(4, None)])
        assert len(state.elite) == 1
        counts[state.elite[0].step] += 1
    for step, weight in enumerate(weights, 1):
        share = weight / sum(weights)
        assert abs(counts[step] / trials - share) < 4 * math.sqrt(share * (1 - share) / trials)
    assert state.draw.probabilities == pytest.approx([weight / sum(weights) for weight in weights])
    assert state.draw.candidates == [1, 2, 3]


def test_a_temperature_of_zero_takes_the_best_and_a_huge_speedup_overflows_nothing() -> None:
    attempts = [attempt(1, 1.0), attempt(2, 1e9), attempt(3, 2.0), attempt(4, None)]
    assert run(evolve(pool_size=2, softmax_temperature=0), attempts).elite[0].step == 2
    assert run(evolve(pool_size=2), attempts).elite[0].step == 2


def test_the_draw_depends_on_the_recorded_seed_alone() -> None:
    attempts = [attempt(step, 1.0 + step / 100) for step in range(1, 12)]
    first = run(evolve(pool_size=4, seed=7), attempts)
    assert first == run(evolve(pool_size=4, seed=7), attempts)
    others = {tuple(one.step for one in run(evolve(pool_size=4, seed=seed), attempts).elite) for seed in range(20)}
    assert len(others) > 5


def test_refine_steps_tune_each_proposal_and_its_best_enters_the_pool() -> None:
    strategy = evolve(pool_size=2, refine_steps=2, total_steps=3)
    assert strategy.steps == 9
    state = strategy.start()
    roles = []
    for step, speedup in enumerate([1.0, 3.0, 2.0, None, None, 1.0, 5.0, None, None], 1):
        roles.append(strategy.role(step, state))
        if step == 3:
            assert [one.step for one in strategy.shown(step, state)] == [1, 2]
        state = strategy.update(state, attempt(step, speedup))
    assert roles == ["proposer", "tuner", "tuner"] * 3
    assert [one.step for one in state.proposals] == [2, 6, 7]
    assert state.best.step == 7


def test_every_step_reads_the_one_before_it() -> None:
    for strategy in (iterative(), evolve(refine_steps=1)):
        assert [strategy.reads(step) for step in (1, 2, 9)] == [0, 1, 8]
