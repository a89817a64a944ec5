"""Search strategies side by side, on simulated models and operators whose optimum is known. Nothing is paid.

    python benchmarks/search.py [--seeds 100] [--answers 100] [--noise 0.01] [--easy] [--only NAME ...] [--json FILE]
    python benchmarks/search.py --calibrate DATA        # the observed figures, from a folder with transcripts

The strategies are those that runs use (scripts/snakernel/search): they decide what each step reads, shows and edits and
keep the state. Simulated are

- the operator: three designs that exclude each other, twelve changes for each. A change multiplies the speed by a
  factor that is drawn from the observed ratios of correct kernels to the best before them, so most changes do nothing
  or harm. The optimum is the best design with all changes that help.
- the model: it writes a program (a design and a set of changes) from what it is shown. How often it is correct is what
  was observed after nothing, after a wrong kernel and after a correct one. Shown correct kernels, it takes one of the
  fast ones and adds a change, or takes one away. Changes that are in shown kernels which were wrong or slower than this
  one it avoids in 70 % of its answers; those in a planner's list that were wrong or made a kernel slower, in 90 %. One
  in twenty answers is a copy.
- the verdict: the true speed with a normal error, and the seconds that answers (log-normal) and verdicts (one device,
  first come first served) take.

So it can show what follows from how a strategy deals with wrong answers, with dead ends, with noise and with waiting.
It cannot show what depends on what models understand: whether a plan makes a kernel better, whether two designs can be
combined, whether feedback is read. Those parts of the model are the assumptions above.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import re
import statistics
import sys
from dataclasses import dataclass, field
from multiprocessing import Pool
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from snakernel.config import load_config
from snakernel.search import Attempt, Plan, State, Strategy, create_strategy
from snakernel.search.models import choose

CALIBRATION = {"first_correct": 0.19, "mended": 0.16, "still_correct": 0.83}
"""Of 16 runs of gpt-5 that write CUDA, 108 rounds: the share of first answers that were correct (3 of 16), of answers
after a wrong one (9 of 56) and after a correct one (30 of 36)."""
EASY = {"first_correct": 0.7, "mended": 0.5, "still_correct": 0.9}
"""An assumption: a model that is mostly right."""
LOG_RATIOS = [-1.64, -0.65, -0.6, -0.5, -0.34, -0.23, -0.2, -0.19, -0.18, -0.11, -0.08, -0.07, -0.06, -0.06, -0.06]
LOG_RATIOS += [-0.06, -0.04, -0.03, -0.02, -0.02, -0.02, -0.01, 0.0, 0.0, 0.12, 0.13, 0.19, 0.46, 0.6, 0.94, 1.44]
"""The logarithms of the 31 ratios of a correct kernel's speedup to the best of its run before it."""

DESIGNS, CHANGES = 3, 12
TUNING = 0.25
"""Spread of what is lost by a kernel's block sizes and warps before they are swept (standard half-normal, log)."""
MODELS = {"small": (0.03, 0.6), "large": (0.15, 1.0)}
"""Price of an answer in dollars, and what the shares of correct answers are multiplied by."""
MARKS = (10, 25, 100)
STRATEGIES: dict[str, dict] = {
    "iterative (baseline)": {},
    "iterative, edits go onto the best": {"tune_from": "best"},
    "iterative, planner": {"planner": True},
    "iterative, edits go onto the best, planner": {"tune_from": "best", "planner": True},
    "iterative, 4 parallel": {"parallel_proposals": 4},
    "iterative, edits go onto the best, 4 parallel": {"tune_from": "best", "parallel_proposals": 4},
    "iterative, 4 islands": {"islands": 4},
    "evolve (baseline)": {"agent_type": "evolve"},
    "evolve, temperature 0.1": {"agent_type": "evolve", "softmax_temperature": 0.1},
    "evolve, planner": {"agent_type": "evolve", "planner": True},
    "evolve, duplicates rejected": {"agent_type": "evolve", "reject_duplicates": True},
    "evolve, 4 parallel": {"agent_type": "evolve", "parallel_proposals": 4},
    "evolve, 4 parallel, planner": {"agent_type": "evolve", "parallel_proposals": 4, "planner": True},
    "evolve, 4 islands": {"agent_type": "evolve", "islands": 4},
    "evolve, 2 islands of 2, planner": {
        "agent_type": "evolve",
        "islands": 2,
        "parallel_proposals": 2,
        "planner": True,
    },
    "evolve, refine 2": {"agent_type": "evolve", "refine_steps": 2},
    "evolve, refine 2, planner": {"agent_type": "evolve", "refine_steps": 2, "planner": True},
    "evolve, planner, sweep 4": {"agent_type": "evolve", "planner": True, "sweep_steps": 4},
}
MIXTURES: dict[str, dict] = {
    "small alone": {"models": {"small": 1}},
    "large alone": {"models": {"large": 1}},
    "both, equal shares": {"models": {"small": 1, "large": 1}},
    "both, bandit": {"models": {"small": 1, "large": 1}, "model_choice": "bandit"},
}


@dataclass(frozen=True)
class Program:
    """What a kernel is in the simulation."""

    design: int
    changes: frozenset[int]
    correct: bool
    tuning: float
    """Logarithm of what its block sizes lose, at most 0."""


class Operator:
    """Speeds of all programs."""

    def __init__(self, random: np.random.Generator):
        self.base = random.normal(0, 0.4, DESIGNS)
        self.gains = np.array([random.choice(LOG_RATIOS, CHANGES, replace=False) for _ in range(DESIGNS)])

    def speed(self, program: Program) -> float:
        """The logarithm of the speedup."""
        return float(self.base[program.design] + sum(self.gains[program.design, one] for one in program.changes)) + (
            program.tuning
        )

    @property
    def optimum(self) -> float:
        """The logarithm of the best speedup that there is."""
        return float(max(self.base + np.clip(self.gains, 0, None).sum(axis=1)))


@dataclass
class Model:
    """What answers."""

    random: np.random.Generator
    correct: dict[str, float]
    """How often it is."""
    programs: dict[int, Program] = field(default_factory=dict)
    speeds: dict[int, float] = field(default_factory=dict)
    """What the verdicts said; minus infinity where it was wrong."""
    helped: dict[int, bool] = field(default_factory=dict)
    """Whether a step's kernel was faster than the one that it was made from."""

    def write(
        self, strategy: Strategy, step: int, state: State, skill: float
    ) -> tuple[Program, int | None, int | None]:
        """The program of a step's answer, the step whose copy it is, and the one that it was made from."""
        random = self.random
        shown = [one.kernel for one in strategy.shown(step, state) if one.kernel is not None]
        good = [one for one in shown if self.programs[one].correct]
        base = strategy.base(step, state)
        if base is not None and base not in shown:
            shown.append(base)
        tuning = -abs(random.normal(0, TUNING))
        if base is not None:
            old = self.programs[base]
            if random.random() < 0.05:
                return old, base, base
            if not old.correct:
                mended = random.random() < self.correct["mended"] * skill
                return Program(old.design, old.changes, mended, old.tuning), None, base
            correct = random.random() < self.correct["still_correct"] * skill ** (1 / 4)
            changes = self._changed(old, self.speeds[base], shown, state)
            return Program(old.design, changes, correct, old.tuning), None, base
        if good and random.random() < 0.85:
            speeds = np.array([self.speeds[one] for one in good])
            weights = np.exp((speeds - speeds.max()) / 0.2)
            taken = good[int(random.choice(len(good), p=weights / weights.sum()))]
            old = self.programs[taken]
            if random.random() < 0.05:
                return old, taken, taken
            others = [self.programs[one] for one in good if self.programs[one].design == old.design]
            borrowed = {change for other in others for change in other.changes if random.random() < 0.3}
            joined = Program(old.design, old.changes | borrowed, True, old.tuning)
            correct = random.random() < self.correct["still_correct"] * skill ** (1 / 4)
            changes = self._changed(joined, self.speeds[taken], shown, state)
            return Program(old.design, changes, correct, tuning), None, taken
        first = not shown or random.random() < 0.5
        design = int(random.integers(DESIGNS)) if first else self.programs[shown[-1]].design
        changes = frozenset(np.flatnonzero(random.random(CHANGES) < 0.15).tolist())
        share = self.correct["first_correct"] if not shown or good else self.correct["mended"]
        return Program(design, changes, random.random() < share * skill, tuning), None, None

    def _changed(self, old: Program, speed: float, shown: list[int], state: State) -> frozenset[int]:
        """One change more, or one less."""
        random = self.random
        if random.random() < 0.2 and old.changes:
            return old.changes - {sorted(old.changes)[int(random.integers(len(old.changes)))]}
        slower = [self.programs[one] for one in shown if self.speeds[one] < speed]
        seen = {change for one in slower if one.design == old.design for change in one.changes}
        ideas = [(one.step, *map(int, one.plan.idea.split("/"))) for one in state.ideas]
        listed = {change for step, design, change in ideas if design == old.design and not self.helped[step]}
        free = [one for one in range(CHANGES) if one not in old.changes]
        for known, care in ((listed, 0.9), (seen, 0.7)):
            if random.random() < care:
                free = [one for one in free if one not in known] or free
        return old.changes | {free[int(random.integers(len(free)))]} if free else old.changes


def search(keys: dict, answers: int, seed: int, noise: float, correct: dict[str, float]) -> dict[str, list[float]]:
    """One search: after each answer the best one's true speed as a share of the optimum and as speedup, and the dollars
    spent; and the minutes until each."""
    random = np.random.default_rng([seed, 0])
    operator = Operator(np.random.default_rng([seed, 1]))
    config = load_config({"total_steps": 100_000, "seed": seed} | keys)
    strategy = create_strategy(config, "simulated")
    model = Model(random, correct)
    states, dollars, asked = [strategy.start()], 0.0, 0
    curve: dict[str, list[float]] = {"share": [], "speedup": [], "dollars": []}
    steps, step = [], 0
    while asked < answers:
        step += 1
        state = states[strategy.reads(step)]
        asks = not strategy.sweeps(step)
        base, copy, parent, chosen = strategy.base(step, state), None, None, None
        if asks:
            asked += 1
            chosen, _ = choose(config, state, strategy.seed(step))
            price, skill = MODELS[chosen or "large"]
            dollars += price
            program, copy, parent = model.write(strategy, step, state, skill)
        elif base is None:
            program = Program(0, frozenset(), False, 0.0)
        else:
            old = model.programs[base]
            program = Program(old.design, old.changes, old.correct, max(-1.0, -abs(random.normal(0, TUNING))))
        true = operator.speed(program)
        measured = math.exp(true + random.normal(0, noise))
        model.programs[step] = program
        model.speeds[step] = math.log(measured) if program.correct else -math.inf
        known = copy is not None and config.reject_duplicates
        parent = base or parent
        before = model.programs[parent] if parent else None
        new = sorted(program.changes - before.changes) if before else sorted(program.changes)
        model.helped[step] = program.correct and model.speeds[step] > (model.speeds[parent] if parent else -math.inf)
        attempt = Attempt(
            step=step,
            compiled=not known,
            correct=program.correct and not known,
            speedup=measured if program.correct and not known else 0.0,
            duplicate_of=copy if known else None,
            plan=Plan(bottleneck="", idea=f"{program.design}/{new[-1]}") if asks and new else None,
            parameters=None if asks else {},
            model=chosen,
            cost_usd=price if chosen else None,
        )
        states.append(strategy.update(states[-1], attempt))
        steps.append((strategy.reads(step), asks, not known))
        if asks:
            best = states[-1].best
            found = operator.speed(model.programs[best.step]) if best.correct else -math.inf
            curve["share"].append(math.exp(found - operator.optimum))
            curve["speedup"].append(math.exp(found))
            curve["dollars"].append(dollars)
    curve["minutes"] = wall_time(steps, np.random.default_rng([seed, 2]))
    return curve


def wall_time(steps: list[tuple[int, bool, bool]], random: np.random.Generator) -> list[float]:
    """Minutes until the state after each asked step: answers of 30 s in the mean (log-normal, half as wide), verdicts
    of 2 s on one device."""
    spread = math.sqrt(math.log(1.25))
    seconds = 30 * np.exp(random.normal(-(spread**2) / 2, spread, len(steps)))
    ended: dict[int, float] = {0: 0.0}
    judged: dict[int, float] = {}
    readers: dict[int, list[int]] = {}
    for number, (read, _, _) in enumerate(steps, 1):
        readers.setdefault(read, []).append(number)
    queue: list[tuple[float, int]] = []
    free, last = 0.0, 0

    def start(state: int) -> None:
        for number in readers.get(state, []):
            heapq.heappush(queue, (ended[state] + (seconds[number - 1] if steps[number - 1][1] else 0.0), number))

    start(0)
    while queue:
        arrives, number = heapq.heappop(queue)
        if steps[number - 1][2]:
            free = max(free, arrives) + 2.0
        judged[number] = max(arrives, free if steps[number - 1][2] else arrives)
        while last + 1 in judged:
            last += 1
            ended[last] = max(ended[last - 1], judged[last])
            start(last)
    return [ended[number] / 60 for number, (_, asks, _) in enumerate(steps, 1) if asks]


def interval(values: list[float]) -> tuple[float, float]:
    """The mean and half of its 95 % confidence interval (normal approximation)."""
    half = 1.96 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), half


def calibrate(data: Path) -> dict[str, object]:
    """The figures of CALIBRATION from a folder of transcripts."""
    runs: dict[tuple[str, str], dict[int, float | None]] = {}
    for path in sorted(data.glob("transcripts/*/*/*/feedback_trace.json")):
        evaluation = json.loads(path.read_text())["evaluation"]
        number = int(re.search(r"_r(\d+)_", path.parent.name + "_")[1])
        passed = evaluation["status"] == "PASSED"
        speedup = evaluation["performance"]["speedup_factor"] if passed else None
        runs.setdefault(path.parts[-4:-2], {})[number] = speedup
    rounds = [[run[number] for number in sorted(run)] for run in runs.values()]
    pairs = [pair for run in rounds for pair in zip(run, run[1:], strict=False)]
    after = {state: [new is not None for old, new in pairs if (old is not None) == state] for state in (False, True)}
    return {
        "runs": len(rounds),
        "rounds": sum(map(len, rounds)),
        "first_correct": statistics.fmean(run[0] is not None for run in rounds),
        "mended": statistics.fmean(after[False]),
        "still_correct": statistics.fmean(after[True]),
        "log_ratios": sorted(
            round(math.log(run[number] / max(filter(None, run[:number]))), 2)
            for run in rounds
            for number in range(1, len(run))
            if run[number] and any(run[:number])
        ),
    }


def _job(job: tuple[str, dict, int, int, float, dict[str, float]]) -> tuple[str, dict[str, list[float]]]:
    name, *rest = job
    return name, search(*rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--answers", type=int, default=100, help="answers of each search")
    parser.add_argument(
        "--noise", type=float, default=0.01, help="standard deviation of a measured speedup's logarithm"
    )
    parser.add_argument("--easy", action="store_true", help="a model that is mostly right, instead of the observed one")
    parser.add_argument("--only", nargs="+", help="names of strategies; default: all")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--calibrate", type=Path, metavar="DATA", help="print the calibration and do nothing else")
    arguments = parser.parse_args()
    if arguments.calibrate:
        print(json.dumps(calibrate(arguments.calibrate)))
        return
    table = {name: keys for name, keys in (STRATEGIES | MIXTURES).items() if name in (arguments.only or [name])}
    jobs = [
        (name, keys, arguments.answers, seed, arguments.noise, EASY if arguments.easy else CALIBRATION)
        for name, keys in table.items()
        for seed in range(arguments.seeds)
    ]
    curves: dict[str, list[dict[str, list[float]]]] = {name: [] for name in table}
    with Pool(os.cpu_count()) as pool:
        for name, curve in pool.imap(_job, jobs, chunksize=5):
            curves[name].append(curve)
    marks = [mark for mark in MARKS if mark <= arguments.answers]
    figures = {}
    baseline = curves.get("iterative (baseline)")
    print(f"Share of the optimum's speedup, {arguments.seeds} seeds, noise {arguments.noise:g}, 95 % intervals\n")
    heads = [f"after {mark} answers" for mark in marks] + [f"more than iterative, after {marks[-1]}"]
    heads += [f"mean speedup, after {marks[-1]}", f"minutes for {marks[-1]}"]
    print(f"| search | {' | '.join(heads)} |\n|{' --- |' * (len(heads) + 1)}")
    for name in (name for name in table if name in STRATEGIES):
        row = {mark: interval([curve["share"][mark - 1] for curve in curves[name]]) for mark in marks}
        cells = ["{:.2f} ± {:.2f}".format(*row[mark]) for mark in marks]
        if baseline:
            pairs = zip(curves[name], baseline, strict=True)
            more = interval([one["share"][marks[-1] - 1] - other["share"][marks[-1] - 1] for one, other in pairs])
            cells.append("{:+.2f} ± {:.2f}".format(*more) if name != "iterative (baseline)" else "")
        else:
            cells.append("")
        speedup = interval([curve["speedup"][marks[-1] - 1] for curve in curves[name]])
        minutes = interval([curve["minutes"][marks[-1] - 1] for curve in curves[name]])
        cells += ["{:.2f} ± {:.2f}".format(*speedup), f"{minutes[0]:.1f}"]
        print(f"| {name} | {' | '.join(cells)} |")
        figures[name] = {"share": row, "speedup": speedup, "minutes": minutes}
    budgets = (0.5, 1.0, 3.0)
    mixtures = [name for name in table if name in MIXTURES]
    if mixtures:
        prices = ", ".join(f"{name} ${price} an answer" for name, (price, _) in MODELS.items())
        print(f"\nIterative with two models ({prices}): share of the optimum for the dollars spent\n")
        print(f"| models | {' | '.join(f'${budget:g}' for budget in budgets)} |\n|{' --- |' * (len(budgets) + 1)}")
    for name in mixtures:
        cells = []
        for budget in budgets:
            reached = [
                max(
                    (share for share, spent in zip(curve["share"], curve["dollars"], strict=True) if spent <= budget),
                    default=0,
                )
                for curve in curves[name]
            ]
            cells.append(interval(reached))
        print(f"| {name} | {' | '.join('{:.2f} ± {:.2f}'.format(*cell) for cell in cells)} |")
        figures[name] = dict(zip(map(str, budgets), cells, strict=True))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
