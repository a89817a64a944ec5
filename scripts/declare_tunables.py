"""Declare what can be tuned in a Triton kernel, for `agent_type: sweep`: TUNABLES, made of what stands in its launches.

    python scripts/declare_tunables.py kernel.py [--definition DEFINITION.json] > FOLDER/{definition}.py
    python scripts/declare_tunables.py --solutions DATASET/solutions --out FOLDER

Taken are the integers that are given, in launches and in the functions around them, to names such as BLOCK_M, TILE,
GROUP_SIZE, num_warps and num_stages; num_warps and num_stages where a launch leaves them out; and the configurations
of an autotuner, which becomes one configuration of tunables. A block that spans a constant axis of the definition, and
that the kernel never counts with (no loop or grid goes in steps of it), is left as it is: with a smaller one the
kernel would be wrong. A comment says so. Look at what was made: another value may be one that the kernel cannot do
without, and then its trials fail. The second form takes the Triton Solutions of a dataset, one a definition; their
definitions lie beside them, in DATASET/definitions.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from snakernel.errors import UserError, run_main
from snakernel.files import read_json, read_text, write_text
from snakernel.search.tunables import NAME, TunablesError, read_tunables

TUNED = re.compile(r"^_*(block|tile|group|split|rows|num_warps$|num_stages$|warps|stages)", re.IGNORECASE)
DEFAULTS = {"num_warps": 4, "num_stages": 3}
"""What Triton takes where a launch names none."""


@dataclass
class Declaration:
    """What was found so far: constants, and replacements in the source by byte positions."""

    axes: dict[str, int | None] = field(default_factory=dict)
    """The definition's axes; None for those that vary."""
    counted: set[str] = field(default_factory=set)
    """Names that the code counts with."""
    whole: dict[str, str] = field(default_factory=dict)
    """Constants that stay as they are, and the axis that each spans."""
    constants: dict[str, int] = field(default_factory=dict)
    values: dict[str, set[int]] = field(default_factory=dict)
    replacements: list[tuple[int, int, str]] = field(default_factory=list)

    def spans(self, name: str, value: int) -> bool:
        """Whether a block covers a constant axis at once: it is as long, or the next power of two, and the code does
        not count with it. It is noted then."""
        if name in self.counted or not name.strip("_").lower().startswith(("block", "tile")):
            return False
        for axis, size in self.axes.items():
            if size and size > 1 and value in (size, 1 << (size - 1).bit_length()):
                self.whole[f"{name} = {value}"] = f"{axis} = {size}"
                return True
        return False

    def constant(self, name: str, value: int, values: set[int] | None = None) -> str:
        """The constant for a name and its value; the same name with another value gets a constant of its own."""
        wanted = f"TUNED_{name.strip('_').upper()}"
        names = [wanted, *(f"{wanted}_{number}" for number in range(2, 99))]
        chosen = next(one for one in names if self.constants.get(one, value) == value)
        self.constants[chosen] = value
        self.values.setdefault(chosen, set()).update(values or nearby(name, value))
        return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel", type=Path, nargs="?", help="a Python file with a Triton kernel")
    parser.add_argument("--definition", type=Path, help="its definition: a block as long as a constant axis stays")
    parser.add_argument("--solutions", type=Path, help="folder of Solution files")
    parser.add_argument("--out", type=Path, help="with --solutions: folder for the kernels")
    arguments = parser.parse_args()
    if (arguments.kernel is None) == (arguments.solutions is None) or bool(arguments.solutions) != bool(arguments.out):
        parser.error("give either a kernel, or --solutions and --out")
    if arguments.kernel:
        axes = read_axes(arguments.definition) if arguments.definition else {}
        print(declare(read_text(arguments.kernel), str(arguments.kernel), axes), end="")
        return
    definitions = {path.stem: path for path in (arguments.solutions.parent / "definitions").rglob("*.json")}
    for path in sorted(arguments.solutions.rglob("*.json")):
        solution = json.loads(read_text(path))
        target = arguments.out / f"{solution['definition']}.py"
        if solution["spec"]["language"] != "triton" or target.exists():
            continue
        definition = definitions.get(solution["definition"])
        try:
            axes = read_axes(definition) if definition else {}
            write_text(target, declare(solution["sources"][0]["content"], str(path), axes))
        except UserError as error:
            print(f"note: {error}", file=sys.stderr)
            continue
        tunables = read_tunables(read_text(target))
        print(f"{target}: {solution['name']}, {tunables.size} combinations of {', '.join(tunables.space)}")


def read_axes(definition: Path) -> dict[str, int | None]:
    """The axes of a definition, with the values of those that are constant."""
    return {name: axis.get("value") for name, axis in read_json(definition)["axes"].items()}


def declare(code: str, origin: str, axes: dict[str, int | None] | None = None) -> str:
    """A kernel with its tunables declared; one that declares some already is returned as it is.

    Args:
        code: the kernel.
        origin: where it is from, for messages.
        axes: of its definition; blocks that cover a constant one at once are not declared.

    Raises:
        UserError: it is no Python, or nothing in it can be tuned.
    """
    try:
        if read_tunables(code) is not None:
            return code
    except TunablesError as error:
        raise UserError(f"{origin}: {error}") from None
    tree = ast.parse(code)
    found = Declaration(axes or {}, _counted(tree))
    lines = [0]
    for line in code.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def place(node: ast.AST) -> tuple[int, int]:
        return lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset

    autotuned = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                configs = _configurations(decorator)
                if configs is not None:
                    autotuned.add(node.name)
                    found.replacements.append((*place(configs), _one_configuration(configs, found)))
            if not any("jit" in ast.unparse(one) for one in node.decorator_list):
                for one in ast.walk(node):
                    if isinstance(one, ast.Assign) and len(one.targets) == 1 and isinstance(one.targets[0], ast.Name):
                        name = one.targets[0].id
                        if TUNED.match(name) and _integer(one.value) and not found.spans(name, one.value.value):
                            found.replacements.append((*place(one.value), found.constant(name, one.value.value)))
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript)):
            continue
        given = {keyword.arg for keyword in node.keywords}
        for keyword in node.keywords:
            tuned = keyword.arg and TUNED.match(keyword.arg) and _integer(keyword.value)
            if tuned and not found.spans(keyword.arg, keyword.value.value):
                constant = found.constant(keyword.arg, keyword.value.value)
                found.replacements.append((*place(keyword.value), constant))
        if None in given or ast.unparse(node.func.value) in autotuned:
            continue
        added = [f"{name}={found.constant(name, value)}" for name, value in DEFAULTS.items() if name not in given]
        last = max(
            [*node.args, *(keyword.value for keyword in node.keywords)], key=lambda one: place(one)[1], default=None
        )
        if added and last is not None:
            end = place(last)[1]
            found.replacements.append((end, end, ", " + ", ".join(added)))
    if not found.constants:
        raise UserError(f"{origin}: nothing to tune was found in it: no launch of a Triton kernel with block sizes")
    text = code.encode()
    # Of two at one place, the insertion behind a value comes after the value.
    for begin, end, new in sorted(found.replacements, key=lambda one: one[:2], reverse=True):
        text = text[:begin] + new.encode() + text[end:]
    head = lines[_end_of_imports(tree)]
    declared = ", ".join(f'"{name}": {sorted(values)}' for name, values in found.values.items())
    constants = "".join(f"{name} = {value}\n" for name, value in found.constants.items())
    whole = "".join(f"# {one} is not among them: it spans the axis {axis}.\n" for one, axis in found.whole.items())
    return (text[:head] + f"\n{NAME} = {{{declared}}}\n{whole}{constants}\n".encode() + text[head:]).decode()


def nearby(name: str, value: int) -> set[int]:
    """The values that are tried beside one: powers of two within a factor of eight, all counts of stages and warps."""
    kind = name.strip("_").lower()
    if "warps" in kind:
        return {1, 2, 4, 8, 16, value}
    if "stages" in kind:
        return {1, 2, 3, 4, 5, value}
    least = 1 if kind.startswith(("group", "split", "rows")) else 16
    return {value} | {2**n for n in range(15) if least <= 2**n and value / 8 <= 2**n <= value * 8}


def _configurations(decorator: ast.expr) -> ast.List | None:
    """The list of configurations of an autotuner."""
    if not (isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith("autotune")):
        return None
    lists = [one.value for one in decorator.keywords if one.arg == "configs"] + decorator.args[:1]
    return lists[0] if lists and isinstance(lists[0], ast.List) and lists[0].elts else None


def _one_configuration(configs: ast.List, found: Declaration) -> str:
    """One configuration of tunables, of the form of the first; they take the values that any of them has."""
    values: dict[str, list[int]] = {}
    for config in configs.elts:
        for name, value in _settings(config):
            if _integer(value):
                values.setdefault(name, []).append(value.value)
    first = ast.parse(ast.unparse(configs.elts[0]), mode="eval").body
    for name, value in _settings(first):
        if _integer(value):
            seen = values[name]
            if len(set(seen)) == 1 and found.spans(name, seen[0]):
                continue
            wider = {
                one
                for one in nearby(name, min(seen)) | nearby(name, max(seen))
                if min(seen) / 2 <= one <= max(seen) * 2
            }
            replaced = ast.Name(found.constant(name, seen[0], wider | set(seen)))
            _replace(first, value, replaced)
    return f"[{ast.unparse(first)}]"


def _settings(config: ast.expr) -> list[tuple[str, ast.expr]]:
    """Names and values of one configuration, in its dictionary or beside it."""
    if not isinstance(config, ast.Call):
        return []
    pairs: list[tuple[str, ast.expr]] = []
    for argument in config.args[:1]:
        if isinstance(argument, ast.Dict):
            keys = zip(argument.keys, argument.values, strict=True)
            pairs += [(key.value, value) for key, value in keys if isinstance(key, ast.Constant)]
    return pairs + [(keyword.arg, keyword.value) for keyword in config.keywords if keyword.arg]


def _replace(tree: ast.AST, old: ast.expr, new: ast.expr) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            node.values = [new if value is old else value for value in node.values]
        elif isinstance(node, ast.keyword) and node.value is old:
            node.value = new


def _counted(tree: ast.Module) -> set[str]:
    """Names in sums and products, and in the arguments of range and cdiv; of META["NAME"], the NAME."""
    parts: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp):
            parts += [node.left, node.right]
        elif isinstance(node, ast.AugAssign):
            parts.append(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("range", "cdiv"):
            parts += node.args
    texts = [one.slice if isinstance(one, ast.Subscript) else one for one in parts]
    names = {one.id for one in texts if isinstance(one, ast.Name)}
    return names | {one.value for one in texts if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def _integer(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool)


def _end_of_imports(tree: ast.Module) -> int:
    """The last line of the docstring and the imports at a file's head."""
    last = 0
    for node in tree.body:
        documents = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not (documents or isinstance(node, ast.Import | ast.ImportFrom)):
            break
        last = node.end_lineno
    return last


if __name__ == "__main__":
    run_main(main)
