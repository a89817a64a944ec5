"""Check a task's files in the dataset and copy what all steps read: definition.json, reference.py, workloads.jsonl."""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.config import read_config
from snakernel.dataset import Task, check_task
from snakernel.errors import run_main
from snakernel.files import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--op-type", required=True)
    parser.add_argument("--definition", required=True)
    parser.add_argument("--out", type=Path, required=True, help="the task's folder")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    task = Task(arguments.op_type, arguments.definition)
    definition, workloads = check_task(task, config.dataset, config.max_workloads)
    write_text(arguments.out / "definition.json", definition.model_dump_json(indent=2) + "\n")
    write_text(arguments.out / "reference.py", definition.reference.strip("\n") + "\n")
    lines = "".join(workload.model_dump_json() + "\n" for workload in workloads)
    write_text(arguments.out / "workloads.jsonl", lines)
    print(f"{task.name}: {len(workloads)} workloads")


if __name__ == "__main__":
    run_main(main)
