"""A kernel file as flashinfer-bench's Solution."""

from __future__ import annotations

import ast
import hashlib
import json
from typing import TYPE_CHECKING, Any

from snakernel.extraction import ENTRY

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
