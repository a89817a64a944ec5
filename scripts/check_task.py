"""Check a task's files in the dataset and copy what all steps read: definition.json, reference.py, workloads.jsonl."""

from __future__ import annotations

import argparse

from snakernel.config import read_config
from snakernel.errors import run_main
from snakernel.evaluation.call import call_evaluator


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="the run's resolved configuration")
    parser.add_argument("--op-type", required=True)
    parser.add_argument("--definition", required=True)
    parser.add_argument("--out", required=True, help="the task's folder")
    arguments = vars(parser.parse_args())
    return call_evaluator(read_config(arguments["config"]), "check_task", arguments, on_device=False)


if __name__ == "__main__":
    run_main(main)
