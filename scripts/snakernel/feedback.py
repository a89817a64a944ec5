"""What a model is told of its kernel, cut to what helps to mend it and to what a prompt can bear."""

from __future__ import annotations

import re
from typing import Any

from snakernel.evaluation.verdict import CompiledKernel, WorkloadResult

ROWS = 40
_FRAME = re.compile(r'^\s*File "[^"]*(?:site-packages|dist-packages|/lib/python3)[^"]*", line \d+')
_IR = re.compile(r"^\s*(%\S+ = |#\w+ = |\^bb\d|module attributes|(tt|ttg|ttng|scf|arith|llvm|gpu)\.\w+)")
REGISTERS = 65_536
"""32-bit registers of a multiprocessor, for every capability below."""
MULTIPROCESSORS = {
    "8.0": (64, 32, 164),
    "8.6": (48, 16, 100),
    "8.7": (48, 16, 164),
    "8.9": (48, 24, 100),
    "9.0": (64, 32, 228),
    "10.0": (64, 32, 228),
    "10.3": (64, 32, 228),
    "12.0": (48, 24, 100),
}
"""Warps, blocks and KiB of shared memory that a multiprocessor holds, by CUDA's compute capability."""


def shorten(text: str, length: int) -> str:
    """A text's head and tail: the tail is longer, since that is where a traceback says what happened."""
    if len(text) <= length:
        return text
    head = length // 4
    return f"{text[:head]}\n[... {len(text) - length} characters left out ...]\n{text[len(text) - length + head :]}"


def without_noise(text: str) -> str:
    """An error without what does not help to mend a kernel: the frames of libraries, and the compiler's own code."""
    kept: list[str] = []
    left_out, in_library = 0, False
    for line in text.splitlines():
        if _FRAME.match(line):
            in_library, left_out = True, left_out + 1
            continue
        # What follows a frame's line, deeper than it, is its source.
        in_library = in_library and line.startswith("    ")
        if in_library or _IR.match(line) or (kept and line.strip() and line == kept[-1]):
            left_out += 1
            continue
        kept.append(line)
    note = [f"[{left_out} lines of libraries and of the compiler's own code left out]"] if left_out else []
    return "\n".join([*kept, *note])


def slowest(rows: list[WorkloadResult]) -> list[WorkloadResult]:
    """The workloads that a prompt shows, in their order: all, or those with the least speedup."""
    worst = sorted(rows, key=lambda one: one.speedup if one.speedup is not None else 0.0)[:ROWS]
    names = {one.uuid for one in worst}
    return [one for one in rows if one.uuid in names]


def evenly(rows: list[Any]) -> list[Any]:
    """As many rows as a prompt shows, evenly spaced."""
    if len(rows) <= ROWS:
        return rows
    return [rows[index * (len(rows) - 1) // (ROWS - 1)] for index in range(ROWS)]


def occupancy(kernel: CompiledKernel, capability: str | None) -> float | None:
    """The share of a multiprocessor's warps that blocks of a kernel can fill, by the CUDA programming guide's limits;
    None for a device that is not listed there."""
    if capability not in MULTIPROCESSORS or kernel.warps < 1:
        return None
    warps, blocks, shared_kib = MULTIPROCESSORS[capability]
    # Registers are given to a warp in units of 256; a block takes 1 KiB of shared memory for the system.
    registers = -(-kernel.registers * 32 // 256) * 256 * kernel.warps
    fits = min(
        warps // kernel.warps,
        blocks,
        REGISTERS // registers if registers else blocks,
        shared_kib * 1024 // (kernel.shared_bytes + 1024),
    )
    return fits * kernel.warps / warps
