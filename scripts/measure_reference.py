"""Measure a task's reference once: expected outputs of every draw, and the latency on every workload."""

from __future__ import annotations

import argparse

from snakernel.config import read_config
from snakernel.errors import run_main
from snakernel.evaluation.call import call_evaluator


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="the run's resolved configuration")
    parser.add_argument("--task-folder", required=True)
    arguments = vars(parser.parse_args())
    return call_evaluator(read_config(arguments["config"]), "measure_reference", arguments)


if __name__ == "__main__":
    run_main(main)
