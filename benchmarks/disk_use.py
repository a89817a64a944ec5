"""What a large run takes on the disk, by kind of file.

    python benchmarks/disk_use.py [--tasks 20] [--steps 50] [--workloads 20]

Makes the files of such a run (tests/synthetic_run.py: the demo's answers and kernels, prompts of 6 kB; nobody is
asked, nothing is judged) and its report. Logs and Snakemake's own records, which those files lack, are those of a
real run of two tasks and six steps on the CPU backend: for each step, what six steps took, divided by six. The
reference's kept outputs are not in it: `reference_max_mb` bounds them for each task. Prints one JSON object; MB are
10^6 bytes of content, `disk_mb` is what the file system's blocks take.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "scripts")]


def content_mb(*folders: Path) -> float:
    """MB of the files below folders."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / 1e6


def main() -> None:
    from clean_run import sizes_of
    from synthetic_run import make_run
    from workflow.running import Project

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--workloads", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Project.create(Path(folder) / "large")
        config = make_run(project.folder, arguments.tasks, arguments.steps, arguments.workloads, run="large")
        subprocess.run(
            [sys.executable, "scripts/write_report.py", "--config", str(config.results / "config.yaml")],
            cwd=project.folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        files = [path for path in config.results.rglob("*") if path.is_file()]
        real = Project.create(Path(folder) / "real")
        real.snakemake()
        figures = {
            **vars(arguments),
            "files": len(files),
            "mb": content_mb(config.results),
            "disk_mb": sum(path.stat().st_blocks * 512 for path in files) / 1e6,
            "mb_by_kind": {kind: size / 1e6 for kind, size in sorted(sizes_of(config.results).items())},
            "logs_kb_a_step": content_mb(real.results / "logs") * 1000 / 6,
            "snakemake_records_kb_a_step": content_mb(real.folder / ".snakemake") * 1000 / 6,
        }
    rounded = json.loads(json.dumps(figures), parse_float=lambda text: round(float(text), 2))
    print(json.dumps(rounded, indent=2))


if __name__ == "__main__":
    main()
