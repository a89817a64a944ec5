"""Steps that are not asked, because the search stopped before them or the budget is spent; kernels not judged again.

The response.json of such a step is ``{"skipped": why}``. It is in no journal and costs nothing, and what is made of it
says the same: a kernel.py of one comment, a verdict SKIPPED, and in best.json the state that the step started from.
A step that starts from there is not asked either. Where the limit that did it is raised, all of them are asked.

Only the standard library is imported here, so that such a job takes milliseconds.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from snakernel.files import read_json, write_json, write_text


class NotAsked(Exception):
    """The step's question was not sent, and will not be while the limits are what they are. The message says why."""


def skip_reason(step_folder: Path) -> str | None:
    """Why a step was not asked, by its response.json; None where it was, or where there is none yet."""
    path = step_folder / "response.json"
    return read_json(path).get("skipped") if path.exists() else None


def stop_reason(state: Path | None) -> str | None:
    """Why nothing is asked that starts from the state in this best.json; None where there is no such reason."""
    if state is None:
        return None
    values = read_json(state)
    return values.get("stopped") or values.get("skipped")


def is_answered(task_folder: Path, step: int) -> bool:
    """Whether the journal has the answer to a step."""
    return (_answers(task_folder) / f"{step}.json").exists()


def is_begun(task_folder: Path, step: int) -> bool:
    """Whether the journal has the answer to a step, or a request that may have one: then it is not skipped at once."""
    return is_answered(task_folder, step) or (_answers(task_folder) / f"{step}.sent.jsonl").exists()


def _answers(task_folder: Path) -> Path:
    return task_folder.parent / "answers" / task_folder.name


def skip_proposal(step_folder: Path, why: str) -> None:
    """All files of a step up to its kernel, where it needs not be asked: the reason in each."""
    write_text(step_folder / "prompt.md", f"Not asked: {why}\n")
    write_json(step_folder / "prompt.json", {"skip": why})
    skip_answer(step_folder / "response.json", why)
    skip_kernel(step_folder, why)


def skip_answer(response: Path, why: str) -> None:
    """response.json of a step that is not asked, and a line for the log."""
    write_json(response, {"format_version": 1, "skipped": " ".join(why.split())})
    print(f"not asked: {why}")


def skip_kernel(step_folder: Path, why: str) -> None:
    """kernel.py and extraction.json of a step that was not asked."""
    write_text(step_folder / "kernel.py", f"# Not asked: {why}\n")
    write_json(step_folder / "extraction.json", {"format_version": 1, "kind": "skipped"})


def skip_verdict(task_folder: Path, kernel: Path, why: str, out: Path) -> None:
    """evaluation.json of a step that was not asked."""
    _verdict(task_folder, kernel, "SKIPPED", f"not asked: {why}", out)


def duplicate_of(step_folder: Path) -> int | None:
    """The earlier step that has the same program, where duplicates are rejected."""
    path = step_folder / "extraction.json"
    return read_json(path).get("duplicate_of") if path.exists() else None


def reject_duplicate(task_folder: Path, kernel: Path, same: int, out: Path) -> None:
    """evaluation.json of a kernel that is an earlier step's: it is not judged again."""
    why = f"duplicate: but for comments and layout it is the kernel of step {same}, and was not judged again"
    _verdict(task_folder, kernel, "REJECTED", why, out)


def _verdict(task_folder: Path, kernel: Path, status: str, error: str, out: Path) -> None:
    """A verdict without a judgement: what would have judged the kernel is the reference's."""
    reference = read_json(task_folder / "reference" / "reference.json")
    write_json(
        out,
        {
            "format_version": 1,
            "task_id": task_folder.name,
            "kernel_sha256": hashlib.sha256(kernel.read_bytes()).hexdigest(),
            "status": status,
            "compiled": False,
            "correct": False,
            "speedup": None,
            "speedup_geomean": None,
            "latency_ms": None,
            "error": error,
            "stats": {},
            "workloads": [],
            **{name: reference[name] for name in ("device", "versions", "timing", "settings")},
            "seconds": {},
            "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        },
    )


def skip_state(before: Path, step: int, why: str, out: Path) -> None:
    """best.json of a step that was not asked: the state that it started from, and why."""
    write_json(out, read_json(before) | {"step": step, "skipped": why})
