"""The process of a SLURM job that stays, and of each step in it: what `slurm_job` in the configuration asks for.

evaluate.py and the other scripts that need a GPU submit it and call it by themselves (docs/clusters.md).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from snakernel.config import read_config
from snakernel.errors import run_main
from snakernel.evaluation import slurm


def main() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, help="be the job: hold the GPU while kernels come")
    what.add_argument("--request", type=json.loads, help="be a step in it: one action, a JSON object")
    arguments = parser.parse_args()
    return slurm.carry_out(arguments.request) if arguments.request else slurm.hold(read_config(arguments.config))


if __name__ == "__main__":
    run_main(main)
