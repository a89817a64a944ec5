"""What is read of a profiler's log."""

from __future__ import annotations

from pathlib import Path

import pytest
from snakernel.evaluation.profiling import CYCLES, FIELDS, STALLED, find_profiler, read_log

HEAD = ["Kernel Name", "gpu__time_duration.sum", *FIELDS.values(), CYCLES]
WAITS = [name.join(STALLED) for name in ("long_scoreboard", "barrier", "selected", "wait")]


def row(*values: object) -> str:
    return ",".join(f'"{value}"' for value in values) + "\n"


LOG = (
    "==PROF== Connected to process 1\n"
    + row(*HEAD, *WAITS)
    + row("", "ns", *["%"] * len(FIELDS), "cycle", *["inst"] * 4)
    + row("_small", "2,440", 10, 20, 30, 0, 12.43, 54.97, 20, 5, 10, 1, 0)
    + row("_short", "2,100", 10, 20, 30, 0, 12.43, 54.97, 10, 8, 7, 2, 3)
    + row("_large", "1,005,440", 81.5, 79, 12, "n/a", 50, 3, "26.5", "17.5", 1.64, 1, 2)
)


def test_launches_are_read_longest_first() -> None:
    large, small, short = read_log(LOG)
    assert (large.name, large.time_us, large.memory, large.tensor) == ("_large", 1005.44, 81.5, None)
    assert list(large.stalls.items()) == [
        ("global or local memory", 66.0),
        ("results of fixed latency", 7.5),
        ("a barrier of the block", 6.2),
    ]
    assert (small.occupancy, small.l2_hits) == (12.43, 54.97)
    assert list(small.stalls) == ["a barrier of the block", "global or local memory"]
    # What it waited for was counted in another run than its cycles, and comes to more than these.
    assert list(short.stalls.values()) == [40.0, 35.0, 15.0]


@pytest.mark.parametrize(
    "text", ["", "==ERROR== no counters\n", '"a"\n', LOG[:60], row(*HEAD) + row("k", "nan?"), '"\n"']
)
def test_what_makes_no_sense_is_left_out(text: str) -> None:
    assert read_log(text) == []


def test_the_profiler_is_looked_for_where_toolkits_have_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    (tmp_path / "bin").mkdir()
    ncu = tmp_path / "bin" / "ncu"
    ncu.write_text("#!/bin/sh\n")
    ncu.chmod(0o755)
    assert find_profiler() == str(ncu)
