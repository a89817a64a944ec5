"""Kernels that declare what can be tuned, and a search over it that needs no model.

A kernel declares its tunables at its top level, by a literal dictionary of the values that each may take, and one
assignment of a literal for each::

    TUNABLES = {"BLOCK_SIZE": [256, 512, 1024, 2048], "NUM_WARPS": [2, 4, 8]}
    BLOCK_SIZE = 1024
    NUM_WARPS = 4

A trial is the same kernel with other values in those assignments.
"""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

NAME = "TUNABLES"
Value = bool | int | float | str
ASKS = 100
"""Suggestions of the optimiser that may repeat what was tried, before one is drawn from what is left."""


class TunablesError(ValueError):
    """A declaration that cannot be read. The message says what is wrong with it."""


@dataclass(frozen=True)
class Tunables:
    """What a kernel declares."""

    code: str
    space: dict[str, list[Value]]
    """The values that each may take: numbers in ascending order, others as they stand there."""
    values: dict[str, Value]
    """The values that it has."""
    places: dict[str, tuple[int, int]]
    """Where these stand in the UTF-8 code: from, to."""

    @property
    def size(self) -> int:
        """How many combinations there are."""
        return math.prod(len(values) for values in self.space.values())

    def kernel(self, values: dict[str, Value]) -> str:
        """The kernel with other values."""
        code = self.code.encode()
        for name, (begin, end) in sorted(self.places.items(), key=lambda place: place[1], reverse=True):
            code = code[:begin] + repr(values[name]).encode() + code[end:]
        return code.decode()


def read_tunables(code: str) -> Tunables | None:
    """The tunables of a kernel; None where it declares none.

    Raises:
        TunablesError: it is no Python, or its declaration is not as described above.
    """
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise TunablesError(f"the kernel is not Python: {error}") from None
    assigned: dict[str, list[ast.expr]] = {}
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in targets:
                if isinstance(target, ast.Name):
                    assigned.setdefault(target.id, []).append(node.value)
    if NAME not in assigned:
        return None
    declared = _literal(assigned[NAME][-1])
    if not isinstance(declared, dict) or not declared:
        raise TunablesError(f"{NAME} must be a literal dictionary of names and their values")
    lines = [0, *itertools.accumulate(len(line) for line in code.encode().splitlines(keepends=True))]
    space, values, places = {}, {}, {}
    for name, allowed in declared.items():
        if not (isinstance(allowed, list | tuple) and allowed and all(map(_is_value, allowed))):
            raise TunablesError(f"{NAME}: {name!r} must have a list of finite numbers, texts or truth values")
        expressions = assigned.get(name, [])
        if len(expressions) != 1:
            raise TunablesError(
                f"{NAME}: {name!r} must be assigned at the top level once, not {len(expressions)} times"
            )
        (expression,) = expressions
        # NAME = tl.constexpr(64), which functions under triton.jit may read.
        if isinstance(expression, ast.Call) and len(expression.args) == 1 and not expression.keywords:
            (expression,) = expression.args
        value = _literal(expression)
        if not _is_value(value):
            raise TunablesError(f"{NAME}: {name!r} must be assigned a literal")
        unique = list(dict.fromkeys([*allowed, value]))
        numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in unique)
        space[name] = sorted(unique) if numbers else unique
        values[name] = value
        places[name] = (
            lines[expression.lineno - 1] + expression.col_offset,
            lines[expression.end_lineno - 1] + expression.end_col_offset,
        )
    return Tunables(code, space, values, places)


def suggest(
    tunables: Tunables, trials: Sequence[tuple[dict[str, Value], float]], seed: int, skip: int = 0
) -> dict[str, Value] | None:
    """The values that the next trial should take: a tree-structured Parzen estimator's, told all that was tried.

    Nothing is kept between calls: the same trials and the same seed give the same values.

    Args:
        tunables: what can be tuned.
        trials: values that were tried and their speedup, 0 where the kernel failed.
        seed: of the optimiser.
        skip: suggestions to leave to steps that are asked at the same time.

    Returns:
        Values that were not tried; None where all were, those left to others included.
    """
    import optuna
    from optuna.distributions import CategoricalDistribution, IntDistribution
    from optuna.trial import create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = tunables.space
    # A number is suggested by its place in the list: near places are near values.
    ordered = {name: not isinstance(values[0], bool | str) for name, values in space.items()}
    distributions = {
        name: IntDistribution(0, len(values) - 1) if ordered[name] else CategoricalDistribution(range(len(values)))
        for name, values in space.items()
    }
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    taken: set[tuple[int, ...]] = set()
    for values, speedup in trials:
        if any(values.get(name) not in allowed for name, allowed in space.items()):
            continue
        places = {name: allowed.index(values[name]) for name, allowed in space.items()}
        taken.add(tuple(places.values()))
        study.add_trial(create_trial(params=places, distributions=distributions, value=speedup))
    for number in range(skip + 1):
        if len(taken) == tunables.size:
            return None
        chosen = None
        for _ in range(ASKS):
            asked = study.ask(distributions).params
            chosen = tuple(asked[name] for name in space)
            if chosen not in taken:
                break
        else:
            chosen = _left(tunables, taken, seed + number)
        taken.add(chosen)
    return {name: values[place] for (name, values), place in zip(space.items(), chosen, strict=True)}


def _left(tunables: Tunables, taken: set[tuple[int, ...]], seed: int) -> tuple[int, ...]:
    """A combination that was not taken, drawn at random."""
    import numpy as np

    random = np.random.default_rng(seed)
    sizes = [len(values) for values in tunables.space.values()]
    while True:
        chosen = tuple(int(random.integers(size)) for size in sizes)
        if chosen not in taken:
            return chosen


def _is_value(value: object) -> bool:
    """Whether something can be written into a kernel, and into JSON."""
    if isinstance(value, str):
        return value.isprintable()
    return isinstance(value, Value) and abs(value) < 2**63


def _literal(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
