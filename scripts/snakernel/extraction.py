"""From a model's answer to a kernel: find the code, or apply the edits. Nothing here raises on what a model wrote."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from snakernel.files import digest_texts
from snakernel.search.state import Plan

ENTRY = "run"
"""The function that a kernel file must define at its top level."""

_TAG = re.compile(r"<(\w+)((?:\s[^<>\n]*)?)>[ \t]*\n(.*?)\n?[ \t]*</\1>", re.DOTALL)
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\n`]*)$", re.MULTILINE)
_EDIT_TAGS = re.compile(r"<((?:old_str|new_str|reasoning)_\d+)>.*?(?:</\1>|\Z)", re.DOTALL)
_FIRST_CODE_LINE = re.compile(r"^(import |from \w|@|def |class |# |\"\"\"|''')")
_PLAN = re.compile(r"<(bottleneck|idea)>(.*?)</\1>", re.DOTALL)
_PLAN_CHARS = 200
_CPP = re.compile(r"#include\s*[<\"]|__global__\s+void|\bTORCH_LIBRARY\b|PYBIND11_MODULE")


class Extraction(BaseModel):
    """How a step's kernel came out of its answer: extraction.json, beside kernel.py."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    format_version: int = 1
    """Version of this file's format."""
    kind: Literal["kernel", "edits", "unchanged", "none", "skipped"]
    """kernel: the answer holds a whole kernel; edits: edits of the base were applied; unchanged: the base as it was,
    because nothing in the answer could be used; none: there is no kernel; skipped: the step was not asked."""
    base: int | None = None
    """The step whose kernel the edits were applied to."""
    edits_applied: int = 0
    """Edits that were applied."""
    edits_skipped: int = 0
    """Edits that were not."""
    warnings: list[str] = Field(default_factory=list)
    """What could not be used and why, in words that the next prompt shows to the model."""
    plan: Plan | None = None
    """What the answer says that it is about to do, where it says so in <bottleneck> and <idea>."""
    fingerprint: str | None = None
    """Hash of the program: of two kernels that differ in comments, docstrings and layout alone it is the same."""
    programs: dict[str, int] = Field(default_factory=dict)
    """reject_duplicates: the fingerprints of the steps that the prompt could know and of this one, each with the first
    step that had it."""
    duplicate_of: int | None = None
    """reject_duplicates: the earlier step that has the same program."""
    kernel_sha256: str | None = None
    """Hash of the kernel file that was made."""


@dataclass(frozen=True)
class Edit:
    """One replacement that a model asks for."""

    number: int
    old: str
    new: str


@dataclass
class Edits:
    """The edits of one answer, and what could not be read."""

    edits: list[Edit] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)


def find_kernel(text: str) -> tuple[str | None, list[str]]:
    """The kernel file in an answer, and warnings.

    Looked at in this order, and the first that gives a file with a top-level ``run`` is taken: fenced blocks (the
    last such block, because drafts and quotations come before the final code), the contents of XML tags, the text
    itself without the prose around it. Where none defines ``run``, the longest thing that looks like Python is taken,
    so that its fault is reported by the compiler and not guessed here. None: the answer holds no Python at all.
    """
    warnings: list[str] = []
    blocks, cut = _fenced_blocks(text)
    pieces = blocks or _tagged_blocks(text)
    complete = [piece for piece in pieces if defines_entry(piece)]
    if complete:
        if len(complete) > 1:
            warnings.append(f"the answer holds {len(complete)} whole kernels; the last one was taken")
        return _tidy(complete[-1]), warnings
    if cut:
        warnings.append("the answer's code block has no end: the answer was cut, write a shorter one")
    if not blocks:
        bare = _without_prose(text)
        if bare is not None:
            return _tidy(bare), warnings
    python = [piece for piece in pieces if _looks_like_python(piece)]
    if python:
        chosen = max(python, key=len)
        if _parses(chosen):
            warnings.append(f"the code defines no top-level function {ENTRY!r}")
        return _tidy(chosen), warnings
    if not pieces and _looks_like_python(text):
        return _tidy(text), warnings
    if _CPP.search(text):
        warnings.append("the answer holds C++ or CUDA source, but no Python file: a Triton kernel in Python is needed")
    elif not text.strip():
        warnings.append("the answer is empty")
    else:
        warnings.append("the answer holds no code")
    return None, warnings


def find_edits(text: str) -> Edits:
    """The ``<old_str_i>``/``<new_str_i>`` pairs of an answer, in the order of their numbers."""
    found = Edits()
    numbers = [int(number) for number in re.findall(r"^[^\w\n]*<(?:old|new)_str_(\d+)>", text, re.MULTILINE)]
    for number in sorted(set(numbers)):
        olds, news = (_edit_parts(text, f"{side}_str_{number}") for side in ("old", "new"))
        if not olds or not news:
            side = "new" if olds else "old"
            found.unreadable.append(
                f"edit {number} was skipped: it has no whole <{side}_str_{number}>...</{side}_str_{number}>"
            )
            continue
        # Of two versions of one edit the later is the correction; two edits under one number are both meant.
        versions = dict(zip(olds, news, strict=False))
        if len(versions) < len(olds):
            found.repeated.append(f"edit {number} stands there more than once; its last version was taken")
        found.edits += [Edit(number, old, new) for old, new in versions.items()]
    return found


def find_plan(text: str) -> Plan | None:
    """What an answer says, in ``<bottleneck>`` and ``<idea>``, that it is about to do; None where it names no idea."""
    said: dict[str, str] = {}
    for tag, words in _PLAN.findall(text):
        said.setdefault(tag, " ".join(words.split())[:_PLAN_CHARS])
    return Plan(bottleneck=said.get("bottleneck", ""), idea=said["idea"]) if said.get("idea") else None


def fingerprint(code: str) -> str | None:
    """A hash of what a kernel file does: its syntax tree without docstrings. None where it defines no ``run``."""
    if not defines_entry(code):
        return None
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            node.body = [
                one
                for one in node.body
                if not (
                    isinstance(one, ast.Expr)
                    and isinstance(one.value, ast.Constant)
                    and isinstance(one.value.value, str)
                )
            ]
    return digest_texts([ast.dump(tree)])


def apply_edits(code: str, edits: list[Edit]) -> tuple[str, int, list[str]]:
    """Apply edits in order; each sees what those before it made.

    An edit is applied where its old text stands exactly once, else where the trimmed old text does (then the trimmed
    new text takes its place), else it is skipped. Returns the new code, how many were applied, and a warning for each
    that was skipped.
    """
    applied, warnings = 0, []
    for edit in edits:
        for old, new in ((edit.old, edit.new), (edit.old.strip(), edit.new.strip())):
            if old.strip() and code.count(old) == 1:
                code = code.replace(old, new)
                applied += 1
                break
        else:
            count = code.count(edit.old.strip()) if edit.old.strip() else 0
            reason = (
                "its old text is empty"
                if not edit.old.strip()
                else (
                    f"its old text stands {count} times in the kernel, it must be there exactly once"
                    if count
                    else "its old text is not in the kernel"
                )
            )
            warnings.append(f"edit {edit.number} was skipped: {reason}")
    return code, applied, warnings


def extract(text: str, base_code: str | None, base: int | None, *, stop_reason: str = "") -> tuple[str, Extraction]:
    """The kernel of a step, and how it was made.

    Args:
        text: the model's answer.
        base_code: the kernel that edits are applied to; None for a proposal.
        base: the step that made it.
        stop_reason: why the answer ended, in the service's word; named in the warning where there is no code.
    """
    code, extraction = _extract(_PLAN.sub("", text), base_code, base, stop_reason)
    return code, extraction.model_copy(update={"plan": find_plan(text), "fingerprint": fingerprint(code)})


def _extract(text: str, base_code: str | None, base: int | None, stop_reason: str) -> tuple[str, Extraction]:
    warnings: list[str] = []
    if base_code is not None:
        found = find_edits(text)
        warnings += found.unreadable + found.repeated
        code, applied, skipped = apply_edits(base_code, found.edits)
        warnings += skipped
        if applied:
            return code, Extraction(
                kind="edits",
                base=base,
                edits_applied=applied,
                edits_skipped=len(skipped) + len(found.unreadable),
                warnings=warnings,
            )
        # What stands in the edits' own tags is a piece of a kernel, never a whole one.
        text = _EDIT_TAGS.sub("", text)
    code, more = find_kernel(text)
    if base_code is not None and (code is None or not defines_entry(code)):
        # A piece of a kernel must not take the place of a whole one that works.
        code = None
        more = [] if warnings else more or ["the answer holds neither an edit nor a whole kernel"]
    warnings += more
    if stop_reason in ("max_tokens", "length", "max_output_tokens", "refusal", "content_filter"):
        warnings.append(f"the answer ended with {stop_reason!r}")
    if code is not None:
        return code, Extraction(kind="kernel", warnings=warnings)
    if base_code is not None:
        return base_code, Extraction(kind="unchanged", base=base, edits_skipped=len(found.edits), warnings=warnings)
    return f"# No kernel: {'; '.join(warnings)}.\n", Extraction(kind="none", warnings=warnings)


def defines_entry(code: str) -> bool:
    """Whether code is Python that binds ``run`` at its top level."""
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == ENTRY:
            return True
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == ENTRY for t in node.targets):
            return True
    return False


def _fenced_blocks(text: str) -> tuple[list[str], bool]:
    """The contents of fenced blocks, in order, and whether the last one was never closed."""
    blocks: list[str] = []
    opened: re.Match[str] | None = None
    fences = list(_FENCE.finditer(text))
    closed_at = 0
    for index, fence in enumerate(fences):
        if fence.start() < closed_at:
            continue
        if opened is None:
            opened = fence
            # A docstring may hold fences: the block ends at the first one that leaves whole Python with a ``run``.
            ends = [one for one in fences[index + 1 :] if one[1].startswith(fence[1]) and not one[2].strip()]
            whole = next((one for one in ends if defines_entry(text[fence.end() : one.start()])), None)
            if whole is not None and not any(
                _parses(text[fence.end() : one.start()]) for one in ends[: ends.index(whole)]
            ):
                blocks.append(_dedent(text[opened.end() : whole.start()].strip("\n"), opened))
                opened, closed_at = None, whole.end()
        elif fence[1].startswith(opened[1]) and not fence[2].strip():
            blocks.append(_dedent(text[opened.end() : fence.start()].strip("\n"), opened))
            opened = None
        elif fence[2].strip() and not _parses(text[opened.end() : fence.start()]):
            # A fence with a language word inside an open block: the first one was prose, or was never closed.
            blocks.append(_dedent(text[opened.end() : fence.start()].strip("\n"), opened))
            opened = fence
    if opened is not None:
        blocks.append(_dedent(text[opened.end() :].strip("\n"), opened))
    return [block for block in blocks if block.strip()], opened is not None


def _dedent(block: str, fence: re.Match[str]) -> str:
    """A block without the indentation of its fence (a block inside a list)."""
    indent = fence[0][: len(fence[0]) - len(fence[0].lstrip())]
    if not indent:
        return block
    return "\n".join(line.removeprefix(indent) for line in block.split("\n"))


def _tagged_blocks(text: str) -> list[str]:
    """The contents of XML-like tags that stand around whole lines, innermost first."""
    blocks: list[str] = []
    for match in _TAG.finditer(text):
        inner = match[3].removeprefix("<![CDATA[").removesuffix("]]>")
        blocks += _tagged_blocks(inner) or [inner.strip("\n")]
    return blocks


def _without_prose(text: str) -> str | None:
    """The part of a text without fences that is Python with a ``run``: prose before and after it is left out."""
    lines = text.splitlines()
    for first, line in enumerate(lines):
        if not _FIRST_CODE_LINE.match(line):
            continue
        last = len(lines)
        for _ in range(200):
            body = "\n".join(lines[first:last])
            try:
                ast.parse(body)
            except SyntaxError as error:
                at = first + (error.lineno or 1) - 1
                # What cannot be read is prose after the code, or this was not the code's first line.
                if at >= last or at <= first:
                    last -= 1
                else:
                    last = at
                if last <= first:
                    break
                continue
            except (ValueError, RecursionError, MemoryError):
                break
            if defines_entry(body):
                return body
            break
    return None


def _edit_parts(text: str, tag: str) -> list[str]:
    """The contents of a tag, wherever it begins a line or follows another tag."""
    parts = []
    for part in re.findall(rf"(?:^[^\w\n]*|(?<=>))<{tag}>(.*?)</{tag}>", text, re.DOTALL | re.MULTILINE):
        if "\n" in part:
            part = re.sub(r"^[ \t]*\n", "", part, count=1)
            part = re.sub(r"\n[ \t]*$", "", part, count=1)
        fenced = re.fullmatch(r"\s*(`{3,})[^\n`]*\n(.*?)\n?[ \t]*\1\s*", part, re.DOTALL)
        parts.append(fenced[2] if fenced else part)
    return parts


def _looks_like_python(code: str) -> bool:
    return bool(re.search(r"^\s*(def \w+\s*\(|import \w|from \w[\w.]* import )", code, re.MULTILINE)) and not (
        _CPP.search(code) and not re.search(r"^import |^from ", code, re.MULTILINE)
    )


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _tidy(code: str) -> str:
    return code.strip("\n") + "\n"


def find_duplicate(extraction: Extraction, number: int, before: list[Extraction]) -> Extraction:
    """Look for a step's program among those of the steps before it, each of which knows those before itself."""
    programs: dict[str, int] = {}
    for one in before:
        for program, first in one.programs.items():
            programs[program] = min(first, programs.get(program, first))
    if extraction.fingerprint is None:
        return extraction.model_copy(update={"programs": programs})
    same = programs.get(extraction.fingerprint)
    return extraction.model_copy(update={"programs": {extraction.fingerprint: number} | programs, "duplicate_of": same})
