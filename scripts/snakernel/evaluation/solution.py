"""A kernel file as flashinfer-bench's Solution."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakernel.errors import UserError
from snakernel.extraction import ENTRY
from snakernel.files import read_text

if TYPE_CHECKING:
    from flashinfer_bench.data import Definition, Solution

ENTRY_FILE = "main.py"


def kernel_sha256(code: str) -> str:
    """The hash that a kernel is known by."""
    return hashlib.sha256(code.encode("utf-8")).hexdigest()


def make_solution(definition: Definition, code: str) -> Solution:
    """A kernel file as the Solution that flashinfer-bench builds."""
    from flashinfer_bench.data import Solution

    fields = solution_fields(definition.name, len(definition.inputs), len(definition.outputs), code, "snakernel", None)
    return Solution.model_validate(fields)


def read_solution(path: Path | str, definition: Definition) -> Solution:
    """A kernel file, or a Solution of a dataset, as the Solution that flashinfer-bench builds.

    Args:
        path: a Python file with a function ``run``, or a Solution's JSON. Of one that does not say how it is called,
            the style is read off its signature, where it is Python.
        definition: what it solves.

    Raises:
        UserError: the file is missing, or is no Solution of this definition.
    """
    from flashinfer_bench.data import Solution

    if not str(path).endswith(".json"):
        return make_solution(definition, read_text(path))
    try:
        fields = json.loads(read_text(path))
        spec, sources = fields["spec"], fields["sources"]
        if "destination_passing_style" not in spec:
            entry = str(spec["entry_point"]).partition("::")[0]
            code = next((one["content"] for one in sources if one["path"] == entry), "")
            arguments = len(definition.inputs) + len(definition.outputs)
            spec["destination_passing_style"] = entry.endswith(".py") and _parameters(code) == arguments
        solution = Solution.model_validate(fields)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is no Solution: {' '.join(str(error).split())[:500]}") from None
    if solution.definition != definition.name:
        raise UserError(f"{path}: solves {solution.definition!r}, not {definition.name!r}")
    return solution


def source_of(solution: Solution) -> str:
    """A solution's source: of several files, all of them, one after another."""
    return "\n".join(source.content for source in solution.sources)


def solution_json(definition: dict[str, Any], code: str, *, author: str, description: str) -> str:
    """A kernel file as a Solution's JSON text, without importing flashinfer_bench (and torch with it).

    Args:
        definition: the definition's JSON.
        code: the kernel.
        author: the model that wrote it.
        description: what is known of it.
    """
    inputs, outputs = len(definition["inputs"]), len(definition["outputs"])
    return json.dumps(solution_fields(definition["name"], inputs, outputs, code, author, description), indent=2) + "\n"


def solution_fields(
    definition: str, inputs: int, outputs: int, code: str, author: str, description: str | None
) -> dict[str, Any]:
    """The fields of a Triton solution whose entry point is ``main.py::run``.

    The calling style is read off the signature: as many parameters as inputs and outputs together is destination
    passing (flashinfer-bench's default), anything else returns its outputs (the baseline's style).
    """
    return {
        "name": f"snakernel_{definition}_{kernel_sha256(code)[:8]}",
        "definition": definition,
        "author": author,
        "spec": {
            "language": "triton",
            "target_hardware": ["cuda"],
            "entry_point": f"{ENTRY_FILE}::{ENTRY}",
            "dependencies": [],
            "destination_passing_style": _parameters(code) == inputs + outputs,
        },
        "sources": [{"path": ENTRY_FILE, "content": code}],
        "description": description,
    }


def _parameters(code: str) -> int | None:
    """How many parameters the last top-level ``run`` must be given; None where that cannot be read off."""
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    runs = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == ENTRY]
    if not runs or runs[-1].args.vararg:
        return None
    arguments = runs[-1].args
    return len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
