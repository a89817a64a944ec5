"""The rules of the search, which are those of the contest's agent baseline."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from snakernel.config import load_config
from snakernel.search import Attempt, Island, ModelRecord, Plan, State, create_strategy
from snakernel.search.models import choose


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


def only(state: State) -> Island:
    """The one island of most searches."""
    (island,) = state.islands
    return island


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
    assert (strategy.base(3, state), state.best.step) == (2, 1)


def test_edits_can_go_onto_the_best_kernel() -> None:
    strategy = iterative(tune_from="best")
    assert strategy.base(3, run(strategy, [attempt(1, 3.0), attempt(2, 1.0)])) == 1
    assert strategy.base(3, run(strategy, [attempt(1, None), attempt(2, None)])) == 2


def test_without_a_kernel_a_new_proposal_is_asked_for() -> None:
    strategy = iterative()
    state = run(strategy, [attempt(1, None, compiled=False, has_kernel=False)])
    assert strategy.role(2, state) == "proposer"


def test_a_tuning_answer_without_a_kernel_keeps_the_base() -> None:
    assert only(run(iterative(), [attempt(1), attempt(2, None, has_kernel=False)])).base == 1


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
    assert [one.step for one in only(state).recent] == [6, 7]
    assert {one.step for one in only(state).elite} == {1, 3, 4}
    assert [one.step for one in strategy.shown(8, state)] == [4, 3, 1, 6, 7]


def test_evolve_shows_no_elite_while_nothing_is_correct() -> None:
    state = run(evolve(pool_size=6), [attempt(step, None) for step in range(1, 6)])
    assert (only(state).elite, only(state).draw) == ([], None)
    assert [one.step for one in only(state).recent] == [3, 4, 5]


def test_evolve_pool_of_one_is_all_elite() -> None:
    state = run(evolve(pool_size=1), [attempt(1, 1.0), attempt(2, 1.0)])
    assert only(state).recent == []
    assert len(only(state).elite) == 1


def test_elite_is_sorted_by_score_and_stable() -> None:
    state = run(evolve(pool_size=6), [attempt(step, 2.0) for step in range(1, 4)] + [attempt(4, None)] * 3)
    assert [one.step for one in only(state).elite] == [1, 2, 3]


def test_elite_is_drawn_by_softmax_of_speedup() -> None:
    """The first draw's frequencies over seeds are within four standard errors of the softmax."""
    speedups, temperature, trials = [1.0, 1.5, 2.0], 0.5, 4000
    weights = [math.exp(speedup / temperature) for speedup in speedups]
    counts: Counter[int] = Counter()
    for seed in range(trials):
        strategy = evolve(pool_size=2, softmax_temperature=temperature, seed=seed)
        state = run(strategy, [attempt(step, speedup) for step, speedup in enumerate(speedups, 1)] + [attempt(4, None)])
        assert len(only(state).elite) == 1
        counts[only(state).elite[0].step] += 1
    for step, weight in enumerate(weights, 1):
        share = weight / sum(weights)
        assert abs(counts[step] / trials - share) < 4 * math.sqrt(share * (1 - share) / trials)
    assert only(state).draw.probabilities == pytest.approx([weight / sum(weights) for weight in weights])
    assert only(state).draw.candidates == [1, 2, 3]


def test_a_temperature_of_zero_takes_the_best_and_a_huge_speedup_overflows_nothing() -> None:
    attempts = [attempt(1, 1.0), attempt(2, 1e9), attempt(3, 2.0), attempt(4, None)]
    assert only(run(evolve(pool_size=2, softmax_temperature=0), attempts)).elite[0].step == 2
    assert only(run(evolve(pool_size=2), attempts)).elite[0].step == 2


def test_the_draw_depends_on_the_recorded_seed_alone() -> None:
    attempts = [attempt(step, 1.0 + step / 100) for step in range(1, 12)]
    first = run(evolve(pool_size=4, seed=7), attempts)
    assert first == run(evolve(pool_size=4, seed=7), attempts)
    others = {
        tuple(one.step for one in only(run(evolve(pool_size=4, seed=seed), attempts)).elite) for seed in range(20)
    }
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
    assert [one.step for one in only(state).proposals] == [2, 6, 7]
    assert state.best.step == 7


def test_every_step_reads_the_one_before_it() -> None:
    for strategy in (iterative(), evolve(refine_steps=1)):
        assert [strategy.reads(step) for step in (1, 2, 9)] == [0, 1, 8]
    assert [list(iterative().kernels_read(step)) for step in (1, 2, 9)] == [[], [1], [8]]
    assert [list(evolve().kernels_read(step)) for step in (1, 2, 9)] == [[], [], []]


def test_parallel_steps_read_the_same_state_and_the_best_of_them_is_edited_next() -> None:
    strategy = iterative(parallel_proposals=3)
    assert [strategy.reads(step) for step in range(1, 10)] == [0, 0, 0, 3, 3, 3, 6, 6, 6]
    assert [list(strategy.kernels_read(step)) for step in (3, 4, 9)] == [[], [1, 2, 3], [4, 5, 6]]
    speedups = [1.0, 2.0, 2.0, None, 0.5, None]
    state = run(strategy, [attempt(step, speedup) for step, speedup in enumerate(speedups[:3], 1)])
    assert strategy.base(4, state) == 2
    state = run(strategy, [attempt(step, speedup) for step, speedup in enumerate(speedups, 1)])
    assert (strategy.base(7, state), state.best.step) == (5, 2)
    assert [one.step for one in strategy.shown(7, state)] == [2, 3, 4, 5, 6]


def test_parallel_proposals_are_refined_each_in_its_own_lane() -> None:
    strategy = evolve(parallel_proposals=2, refine_steps=1, total_steps=4, pool_size=4)
    assert strategy.steps == 8
    assert [strategy.reads(step) for step in range(1, 9)] == [0, 0, 1, 2, 4, 4, 5, 6]
    attempts = [attempt(step, speedup) for step, speedup in enumerate([1.0, 4.0, 2.0, 3.0], 1)]
    assert strategy.base(3, run(strategy, attempts[:1])) == 1
    assert strategy.base(4, run(strategy, attempts[:2])) == 2
    assert [one.step for one in strategy.shown(4, run(strategy, attempts[:2]))] == [2]
    assert [one.step for one in only(run(strategy, attempts)).proposals] == [3, 2]


def test_islands_wait_for_each_other_only_to_migrate() -> None:
    strategy = evolve(islands=2, migrate_every=2)
    assert [strategy.reads(step) for step in range(1, 11)] == [0, 0, 1, 2, 4, 4, 5, 6, 8, 8]
    wide = evolve(islands=2, parallel_proposals=2, migrate_every=9)
    assert [wide.reads(step) for step in range(1, 13)] == [0, 0, 0, 0, 2, 2, 4, 4, 6, 6, 8, 8]


@pytest.mark.parametrize("make", [iterative, evolve])
def test_an_island_shows_its_own_until_another_ones_best_migrates_to_it(make) -> None:
    strategy = make(islands=2, migrate_every=3, pool_size=6, max_memory_round=9)
    attempts = [attempt(step, float(step)) for step in range(1, 7)]
    for step in (3, 4, 5, 6):
        state = run(strategy, attempts[: strategy.reads(step)])
        shown = [one.step for one in strategy.shown(step, state)] + [strategy.base(step, state) or step]
        assert {number % 2 for number in shown} == {step % 2}
    state = run(strategy, attempts)
    assert state.islands[1].immigrants == []
    if make is iterative:
        assert (strategy.base(7, state), strategy.base(8, state)) == (6, 6)
    else:
        assert 6 in [one.step for one in strategy.shown(7, state)]
        assert [one.step for one in state.islands[0].immigrants] == [6]


def test_nothing_but_a_better_correct_kernel_migrates() -> None:
    state = run(iterative(islands=2, migrate_every=1), [attempt(1, None), attempt(2, None)])
    assert [island.base for island in state.islands] == [1, 2]


@pytest.mark.parametrize("agent_type", ["iterative", "evolve"])
@pytest.mark.parametrize(
    ("islands", "width", "refine", "every"), [(1, 1, 0, 5), (1, 3, 2, 5), (3, 2, 1, 2), (4, 1, 0, 1)]
)
def test_a_prompt_is_made_of_what_its_state_holds(agent_type, islands, width, refine, every) -> None:
    """What a step shows and edits is not later than the state that it reads, and its kernels are ready before it."""
    keys = {"islands": islands, "parallel_proposals": width, "refine_steps": refine, "migrate_every": every}
    strategy = {"iterative": iterative, "evolve": evolve}[agent_type](**keys, max_memory_round=99)
    states, ready = [strategy.start()], {0: set()}
    for step in range(1, 61):
        read = strategy.reads(step)
        assert 0 <= read < step
        state = states[read]
        assert state.step == read
        assert all(one.step <= read for one in strategy.shown(step, state))
        ready[step] = {step}.union(*(ready[before] for before in strategy.kernels_read(step)))
        if strategy.base(step, state) is not None:
            assert strategy.tunes(step)
            assert strategy.base(step, state) in ready[step]
        states.append(strategy.update(states[-1], attempt(step, None if step % 7 == 3 else 1 + (step * 37 % 11) / 10)))
    assert states[-1].best.speedup == 2.0


def test_a_search_stops_at_its_target_and_stays_stopped() -> None:
    strategy = iterative(stop_at_speedup=2)
    assert run(strategy, [attempt(1, 1.9), attempt(2, None)]).stopped is None
    state = run(strategy, [attempt(1, 1.0), attempt(2, 2.0)])
    assert state.stopped == "step 2 has a speedup of 2, and stop_at_speedup is 2"
    # An answer that was awaited meanwhile counts, and does not start the search again.
    later = strategy.update(state, attempt(3, 5.0))
    assert (later.best.step, later.stopped) == (3, state.stopped)


def test_a_search_stops_when_its_patience_ends() -> None:
    strategy = iterative(patience=2)
    assert run(strategy, [attempt(1, 1.0), attempt(2, 0.5)]).stopped is None
    assert run(strategy, [attempt(1, 1.0), attempt(2, 1.5), attempt(3, 1.5)]).stopped is None
    told = run(strategy, [attempt(1, 1.0), attempt(2, 0.5), attempt(3, None)]).stopped
    assert told == "nothing was better than step 1 in 2 steps, and patience is 2"


def test_a_duplicate_is_edited_where_it_was_judged() -> None:
    strategy = iterative(reject_duplicates=True)
    state = run(strategy, [attempt(1), attempt(2), duplicate(3, of=1)])
    assert strategy.base(4, state) == 1
    strategy = evolve(reject_duplicates=True, refine_steps=1)
    state = run(strategy, [attempt(1), attempt(2), duplicate(3, of=1)])
    assert strategy.base(4, state) == 1
    assert all(list(strategy.kernels_read(step)) for step in range(2, 9))


def duplicate(step: int, *, of: int) -> Attempt:
    return Attempt(step=step, compiled=False, correct=False, speedup=0.0, duplicate_of=of)


def test_ideas_are_kept_with_what_became_of_them() -> None:
    plan = Plan(bottleneck="bandwidth", idea="wider loads")
    attempts = [attempt(1), attempt(2).model_copy(update={"plan": plan})]
    assert [(one.step, one.plan.idea) for one in run(iterative(planner=True), attempts).ideas] == [(2, "wider loads")]
    assert run(iterative(), attempts).ideas == []


def test_models_are_drawn_by_their_shares() -> None:
    config = load_config({"models": {"small": 3, "large": 1}})
    state = iterative().start()
    drawn = Counter(choose(config, state, [0, 7, step])[0] for step in range(2000))
    assert abs(drawn["small"] / 2000 - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 2000)
    assert choose(config, state, [0, 7, 1]) == choose(config, state, [0, 7, 1])
    assert choose(config, state, [0, 7, 1])[1] == {"small": 0.75, "large": 0.25}
    assert choose(load_config({}), state, [0]) == (None, {})
    assert load_config({"models": ["a", "b"]}).models == {"a": 1.0, "b": 1.0}


def test_a_bandit_prefers_what_improved_most_for_a_dollar() -> None:
    config = load_config({"models": ["cheap", "dear"], "model_choice": "bandit"})
    state = iterative().start()

    def share(**models: ModelRecord) -> float:
        after = state.model_copy(update={"models": models})
        return sum(choose(config, after, [seed])[0] == "cheap" for seed in range(500)) / 500

    same = {"asked": 20, "gains": 2.0}
    assert 0.4 < share() < 0.6
    assert share(cheap=ModelRecord(cost_usd=0.2, **same), dear=ModelRecord(cost_usd=2.0, **same)) > 0.9
    better_one = ModelRecord(asked=20, gains=10.0, cost_usd=2.0)
    assert share(cheap=ModelRecord(asked=20, gains=0.0, cost_usd=2.0), dear=better_one) < 0.05
    # Without prices all cost the same.
    assert 0.4 < share(cheap=ModelRecord(**same), dear=ModelRecord(**same)) < 0.6


def test_what_a_model_brought_is_the_latency_that_it_saved() -> None:
    def asked(step: int, speedup: float | None, model: str, cost: float | None) -> Attempt:
        return attempt(step, speedup).model_copy(update={"model": model, "cost_usd": cost})

    attempts = [asked(1, 1.0, "a", 0.5), asked(2, 4.0, "b", 1.0), asked(3, 2.0, "a", 0.5), asked(4, None, "a", None)]
    state = run(iterative(models=["a", "b"]), attempts)
    assert state.models == {
        "a": ModelRecord(asked=3, cost_usd=1.0, gains=1.0),
        "b": ModelRecord(asked=1, cost_usd=1.0, gains=0.75),
    }


def test_a_sweep_tries_the_best_of_what_a_model_wrote_in_its_lane() -> None:
    strategy = evolve(refine_steps=1, sweep_steps=2)
    written = [attempt(1, 3.0), attempt(2, 1.0)]
    trial = attempt(3, 5.0).model_copy(update={"parameters": {"BLOCK": 64}})
    assert [strategy.sweeps(step) for step in range(1, 6)] == [False, False, True, True, False]
    assert strategy.base(3, run(strategy, written)) == 1
    state = run(strategy, [*written, trial])
    assert strategy.base(4, state) == 1
    assert [one.step for one in strategy.shown(4, state)] == [1, 3]
