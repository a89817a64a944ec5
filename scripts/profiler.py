"""The process that profiles a kernel: confined, it becomes Nsight Compute, which starts it again with the kernel.

Started by the evaluator (:mod:`snakernel.evaluation.profiling`) with a folder that holds request.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from snakernel.evaluation.sandbox import Sandbox


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="holds request.json, ncu/ and kernel/")
    parser.add_argument("--profiled", action="store_true", help="run the kernel: given by ncu's own call")
    arguments = parser.parse_args()
    request = json.loads((arguments.folder / "request.json").read_text())
    if arguments.profiled:
        return run(request, arguments.folder / "kernel")
    home = arguments.folder / "ncu"
    os.environ.update(HOME=str(home), TMPDIR=str(home))
    os.chdir(home)
    sandbox(request, arguments.folder).enter(profiler=True)
    command = [*request["ncu"], sys.executable, __file__, "--folder", str(arguments.folder), "--profiled"]
    os.execv(command[0], command)


def sandbox(request: dict, scratch: Path) -> Sandbox:
    """What may be touched, of the machine and of a folder for itself."""
    planned = request["sandbox"]
    folders = {name: [Path(path) for path in planned[name]] for name in ("readable", "devices")}
    return Sandbox(scratch, **folders, abi=planned["abi"], no_network=planned["no_network"])


def run(request: dict, scratch: Path) -> None:
    """Call the kernel once to compile it, and once more before the profiler's eyes."""
    import torch
    from flashinfer_bench.compile import BuilderRegistry
    from flashinfer_bench.data import Definition, Solution, Workload
    from snakernel.evaluation.candidate import limit_resources, make_outputs, own_folders
    from snakernel.evaluation.inputs import draw_inputs

    definition, workload = Definition(**request["definition"]), Workload(**request["workload"])
    solution = Solution(**request["solution"])
    limit_resources()
    own_folders(scratch)
    sandbox(request, scratch).enter_profiled()
    runnable = BuilderRegistry.get_instance().build(definition, solution)
    values = draw_inputs(definition, workload, request["seed"], "cuda", Path(request["dataset"]))
    if solution.spec.destination_passing_style:
        values += make_outputs(definition, values, "cuda")
    with torch.no_grad():
        runnable(*values)
        torch.cuda.synchronize()
        torch.cuda.cudart().cudaProfilerStart()
        runnable(*values)
        torch.cuda.synchronize()
        torch.cuda.cudart().cudaProfilerStop()


if __name__ == "__main__":
    main()
