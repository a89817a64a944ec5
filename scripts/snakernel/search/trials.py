"""Who answers a step that asks no model: the kernel that it is made of, with the values that its prompt chose."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from snakernel.config import Config
from snakernel.errors import UserError
from snakernel.files import read_text
from snakernel.llm.base import Answer, Request
from snakernel.search.tunables import Tunables, TunablesError, read_tunables


def given_kernel(config: Config, task: str, definition: str) -> Path:
    """The kernel that ``agent_type: sweep`` tunes: {sweep_path}/{definition}.py, or the best one of a finished run.

    Raises:
        UserError: there is none.
    """
    folder = Path(config.sweep_path or "")
    for path in (folder / f"{definition}.py", folder / task / "best" / "kernel.py"):
        if path.is_file():
            return path
    raise UserError(
        f"sweep_path: {str(folder)!r} holds no kernel for {definition!r}: it must have {definition}.py, or be the "
        f"folder of a finished run with {task}/best/kernel.py"
    )


def given_tunables(config: Config, task: str, definition: str) -> Tunables:
    """What that kernel declares as tunable.

    Raises:
        UserError: there is no such kernel, or it declares nothing, or not as it must.
    """
    path = given_kernel(config, task, definition)
    try:
        tunables = read_tunables(read_text(path))
    except TunablesError as error:
        raise UserError(f"{path}: {error}") from None
    if tunables is None:
        raise UserError(f"{path}: declares no TUNABLES; scripts/declare_tunables.py can do that for a Triton kernel")
    return tunables


class Trials:
    """Answers with a kernel, at no cost."""

    def __init__(self, kernel: str):
        """``kernel``: the one that values are put into."""
        self.kernel = kernel

    def ask(self, request: Request) -> Answer:
        """The kernel with the values of the question; without values, a line that says so."""
        values = request.question.parameters
        if values is None:
            text = "No trial: there is nothing that was not tried."
        else:
            told = ", ".join(f"{name}={value!r}" for name, value in values.items())
            text = f"{told}\n\n```python\n{read_tunables(self.kernel).kernel(values).strip()}\n```\n"
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return Answer(
            api_type="sweep",
            request=request,
            text=text,
            model=request.model,
            stop_reason="end_turn",
            cost_usd=0.0,
            started=now,
            ended=now,
        )
