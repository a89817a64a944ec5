"""Remove from a run what can be made again and takes room: the reference's kept outputs, and, where asked, logs and
exports. Answers, prompts, kernels and verdicts are never removed.

Without the kept outputs every evaluation computes them again: `snakemake --forcerun measure_reference` keeps them anew.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from snakernel.errors import UserError, run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the run's folder: results/RUN")
    parser.add_argument("--logs", action="store_true", help="also its logs")
    parser.add_argument("--exports", action="store_true", help="also its exports")
    arguments = parser.parse_args()
    results: Path = arguments.results
    if not (results / "config.yaml").is_file():
        raise UserError(f"{results}: is no run: it has no config.yaml")
    # The folder itself is an output of a rule: it stays, and nothing is made again because it went.
    found = [path for path in results.glob("*/reference/expected/*") if path.is_file()]
    for name, wanted in (("logs", arguments.logs), ("exports", arguments.exports)):
        if wanted:
            found += [path for path in (results / name).rglob("*") if path.is_file()]
    freed = sum(path.stat().st_size for path in found)
    for path in found:
        path.unlink()
    for name, wanted in (("logs", arguments.logs), ("exports", arguments.exports)):
        if wanted:
            shutil.rmtree(results / name, ignore_errors=True)
    print(f"{results}: {len(found)} files removed, {freed / 2**20:.1f} MB")
    for kind, size in sorted(sizes_of(results).items()):
        print(f"{kind}: {size / 2**20:.2f} MB")


def sizes_of(results: Path) -> dict[str, int]:
    """What a run takes, in bytes, by its kind."""
    kinds: dict[str, int] = {}
    for path in results.rglob("*"):
        if path.is_file():
            parts = path.relative_to(results).parts
            kind = next((part for part in parts if part in ("answers", "logs", "exports", "reference", "report")), None)
            kind = kind or ("steps" if any(part.startswith("step_") for part in parts) else "the rest")
            kinds[kind] = kinds.get(kind, 0) + path.stat().st_size
    return kinds


if __name__ == "__main__":
    run_main(main)
