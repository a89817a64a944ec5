"""What a process may use."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from snakernel.files import write_text
from snakernel.processes import memory_bytes

MACHINE = psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("listed", "files", "allowed"),
    [
        ("0::/job/step", {"job/step/memory.max": "max", "job/memory.max": "1000000"}, 1_000_000),
        ("0::/job/step", {"job/step/memory.max": "2000", "job/memory.max": "3000"}, 2000),
        ("0::/", {"memory.max": "5000"}, 5000),
        ("4:cpu,memory:/job\n0::/", {"memory/job/memory.limit_in_bytes": "4000"}, 4000),
        ("4:memory:/gone\n1:cpu:/x", {"memory/memory.limit_in_bytes": str(2**63 - 4096)}, MACHINE),
        ("0::/../other", {"../memory.max": "6"}, MACHINE),
        (None, {}, MACHINE),
    ],
    ids=["of a job", "the least", "of a container", "version 1", "no bound", "above the top", "no control groups"],
)
def test_memory_is_bound_by_control_groups(tmp_path: Path, listed: str, files: dict[str, str], allowed: int) -> None:
    groups, root = tmp_path / "cgroup", tmp_path / "fs" / "cgroup"
    root.mkdir(parents=True)
    if listed is not None:
        write_text(groups, listed + "\n")
    for name, text in files.items():
        write_text(root / name, text + "\n")
    assert memory_bytes(groups, root) == allowed
