"""Check a run's files: each that was changed, cut short or does not fit the others is named, with what to do about it.

Nothing is written and nobody is asked. Exit code 1 where something is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from snakernel.errors import UserError, run_main
from snakernel.evaluation.solution import kernel_sha256
from snakernel.evaluation.verdict import Confirmation, Evaluation, Reference
from snakernel.files import read_model, read_text, remedy
from snakernel.history import Step
from snakernel.llm.base import Answer, Prompt
from snakernel.search.state import State
from snakernel.summary import Summary


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the run's folder: results/RUN")
    arguments = parser.parse_args()
    if not arguments.results.is_dir():
        raise UserError(f"{arguments.results}: no such folder")
    faults = list(find_faults(arguments.results))
    for fault in faults:
        print(f"error: {fault}")
    print(f"{arguments.results}: {len(faults) or 'nothing'} wrong")
    return 1 if faults else 0


def find_faults(results: Path) -> Iterator[str]:
    """What is wrong with the files of a run, one sentence each."""
    for path in sorted((results / "answers").glob("*/[0-9]*.json")):
        yield from _told(lambda path=path: read_model(path, Answer))
    if (results / "summary.json").exists():
        yield from _told(lambda: read_model(results / "summary.json", Summary))
    for folder in sorted(path.parent for path in results.glob("*/definition.json")):
        if (folder / "reference" / "reference.json").exists():
            yield from _told(lambda folder=folder: read_model(folder / "reference" / "reference.json", Reference))
        if (folder / "best" / "evaluation.json").exists():
            yield from _told(lambda folder=folder: _check_kernel(folder / "best"))
        if (folder / "best" / "confirmation.json").exists():
            yield from _told(lambda folder=folder: read_model(folder / "best" / "confirmation.json", Confirmation))
        for step in sorted(folder.glob("step_*")):
            yield from _check_step(results / "answers" / folder.name, Step(step))


def _check_step(answers: Path, step: Step) -> Iterator[str]:
    """A step's files, by themselves and with what the journal says of it."""
    try:
        if step.skipped:
            return
    except UserError as error:
        yield str(error)
        return
    kinds = {"prompt.json": Prompt, "best.json": State, "response.json": Answer}
    for name, kind in kinds.items():
        if (step.folder / name).exists():
            yield from _told(lambda name=name, kind=kind: read_model(step.folder / name, kind))
    if (step.folder / "kernel.py").exists():
        yield from _told(lambda: step.kernel)
    if (step.folder / "evaluation.json").exists():
        yield from _told(lambda: _check_kernel(step.folder))
    try:
        answer = read_model(answers / f"{step.number}.json", Answer)
    except UserError:
        return
    prompt, response = step.folder / "prompt.md", step.folder / "response.json"
    if prompt.exists() and read_text(prompt) != answer.request.prompt:
        yield f"{prompt}: is not what was asked: it was changed since; {remedy(prompt)}"
    try:
        if response.exists() and read_model(response, Answer) != answer:
            yield f"{response}: is not what the journal says was answered; {remedy(response)}"
    except UserError:
        return


def _check_kernel(folder: Path) -> None:
    """A verdict, and that it is of the kernel beside it."""
    evaluation, kernel = read_model(folder / "evaluation.json", Evaluation), folder / "kernel.py"
    if kernel.exists() and kernel_sha256(read_text(kernel)) != evaluation.kernel_sha256:
        raise UserError(f"{kernel}: is not the kernel that {folder.name}/evaluation.json judges; {remedy(kernel)}")


def _told(check) -> Iterator[str]:
    try:
        check()
    except UserError as error:
        yield str(error)


if __name__ == "__main__":
    run_main(main)
