"""Measure a task's reference once: expected outputs of every draw, and the latency on every workload."""

from __future__ import annotations

import argparse
from pathlib import Path

from snakernel.config import read_config
from snakernel.dataset import read_definition, read_workloads
from snakernel.errors import run_main
from snakernel.evaluation.session import evaluation_session
from snakernel.files import write_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's resolved configuration")
    parser.add_argument("--task-folder", type=Path, required=True)
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    folder = arguments.task_folder / "reference"
    (folder / "expected").mkdir(parents=True, exist_ok=True)
    with evaluation_session(config) as session:
        from snakernel.evaluation.reference import measure_reference

        reference = measure_reference(
            arguments.task_folder.name,
            read_definition(arguments.task_folder / "definition.json"),
            read_workloads(arguments.task_folder / "workloads.jsonl"),
            session.settings,
            session.dataset,
            folder,
        )
    write_model(folder / "reference.json", reference)
    for note in reference.notes:
        print(f"note: {note}")
    for one in reference.workloads:
        axes = ", ".join(f"{axis}={value}" for axis, value in one.axes.items())
        print(f"{axes}: {one.latency.median_ms:.4f} ms, {one.latency.calls} calls")


if __name__ == "__main__":
    run_main(main)
