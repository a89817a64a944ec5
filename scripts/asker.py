"""The process that asks models: the warm parent of scripts/propose.py, with a service's SDK imported and the keys.

A fork of it asks each question and keeps the answer; other scripts start it by themselves. It goes with its run, and
candidate kernels are no descendants of it.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from typing import Any

from snakernel import warm
from snakernel.errors import run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    warm.add_arguments(parser)
    parser.add_argument("--api-type", required=True, help="the service whose SDK is imported")
    arguments = parser.parse_args()
    from snakernel.llm import asking, ledger, limits  # noqa: F401
    from snakernel.llm.providers import load_sdk

    load_sdk(arguments.api_type)
    warm.Server.of(arguments, carry_out).serve()


def carry_out(request: dict[str, Any]) -> None:
    """In a fork: ask a step's question. Clients, connections and locks are the fork's own."""
    from snakernel.llm.asking import ask_step

    values = request["arguments"]
    ask_step(**{name: Path(value) if name in PATHS else value for name, value in values.items()})


PATHS = ("config", "task_folder", "prompt", "out")

if __name__ == "__main__":
    gc.disable()  # importing makes many objects that stay
    run_main(main)
