"""Real kernels as recorded answers: what `api_type: replay` reads, made of Solution files.

    python tests/replays.py SOLUTIONS OUT [--cuda]

writes OUT/{definition}/{step}.md, one a solution: Triton and Python ones as they are; with --cuda, after them, CUDA
ones with a Torch binding, in a Python file that builds them.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
from pathlib import Path

PREBUILT = Path(sysconfig.get_path("purelib")) / "snakernel_prebuilt"
"""Where `PREBUILD=1 python KERNEL.py` leaves a CUDA kernel: kernels may read it there, and nvcc takes a minute each."""

CUDA_FILE = '''\
"""{name}: CUDA sources, built by PyTorch at import, or before."""
import importlib.util
import os
import tempfile

from torch.utils.cpp_extension import load

SOURCES = {sources}
built = {built!r}
if os.path.exists(built):
    spec = importlib.util.spec_from_file_location("candidate", built)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
else:
    folder = os.path.dirname(built) if os.environ.get("PREBUILD") else tempfile.mkdtemp()
    os.makedirs(folder, exist_ok=True)
    for name, text in SOURCES.items():
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)
    files = [os.path.join(folder, name) for name in SOURCES if not name.endswith((".h", ".cuh"))]
    module = load("candidate", files, extra_include_paths=[folder], build_directory=folder)


def run({inputs}):
    return module.run({inputs})
'''


def answers(solutions: Path, definitions: Path, *, cuda: bool) -> dict[str, list[tuple[str, str]]]:
    """For each definition, the name and the answer text of its solutions: Triton first, then Python, then CUDA."""
    found: dict[str, list[tuple[int, str, str]]] = {}
    for path in sorted(solutions.glob("*/*/*/*.json")):
        solution = json.loads(path.read_text())
        spec = solution["spec"]
        if spec["language"] in ("triton", "python"):
            code = solution["sources"][0]["content"]
        elif cuda and spec.get("binding") == "torch":
            definition = next(definitions.glob(f"*/{solution['definition']}.json"))
            code = CUDA_FILE.format(
                name=solution["name"],
                sources=repr({source["path"]: source["content"] for source in solution["sources"]}),
                built=str(PREBUILT / solution["name"] / "candidate.so"),
                inputs=", ".join(json.loads(definition.read_text())["inputs"]),
            )
        else:
            continue
        rank = ["triton", "python", "cuda"].index(spec["language"])
        text = f"{solution['name']}\n\n```python\n{code.strip()}\n```\n"
        found.setdefault(solution["definition"], []).append((rank, solution["name"], text))
    return {name: [(title, text) for _, title, text in sorted(rows)] for name, rows in found.items()}


def write_replays(data: Path, out: Path, *, cuda: bool = False) -> dict[str, list[str]]:
    """Write the answers of all definitions of a dataset; returns the solutions' names, in the order of the steps."""
    written = {}
    for definition, rows in answers(data / "solutions", data / "definitions", cuda=cuda).items():
        (out / definition).mkdir(parents=True, exist_ok=True)
        for step, (_, text) in enumerate(rows, start=1):
            (out / definition / f"{step}.md").write_text(text)
        written[definition] = [name for name, _ in rows]
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cuda", action="store_true")
    arguments = parser.parse_args()
    print(json.dumps(write_replays(arguments.data, arguments.out, cuda=arguments.cuda), indent=2))
