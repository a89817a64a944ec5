"""Variants of a Triton kernel that other processes compile while it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from evaluating import SCRIPTS, Bench
from snakernel.evaluation.devices import cuda_devices
from snakernel.evaluation.environment import clean_environment
from snakernel.evaluation.verdict import Evaluation
from snakernel.files import read_model

pytestmark = pytest.mark.skipif(
    not cuda_devices() or len(os.sched_getaffinity(0)) < 12,
    reason="there is no CUDA device on this machine, or it has too few processor cores to compile ahead",
)

KERNEL = """
import glob
import os

import torch
import triton
import triton.language as tl

SEEN = set()


@triton.jit
def kernel(x, w, y, ROWS: tl.constexpr, H: tl.constexpr):  # another variant for each number of rows
    at = tl.arange(0, H)
    v = tl.load(x + tl.program_id(0) * H + at).to(tl.float32)
    scale = tl.rsqrt(tl.sum(v * v, 0) / H + 1e-6)
    tl.store(y + tl.program_id(0) * H + at, (v * scale * tl.load(w + at).to(tl.float32)).to(tl.bfloat16))


def run(hidden_states, weight):
    rows, width = hidden_states.shape
    if rows not in SEEN:
        SEEN.add(rows)
        print("compiled before", len(glob.glob(os.environ["TRITON_CACHE_DIR"] + "/*/*.cubin")), flush=True)
    y = torch.empty_like(hidden_states)
    kernel[(rows,)](hidden_states, weight, y, ROWS=rows, H=width)
    return y
"""
STANDBY = """
import sys

sys.path.insert(0, sys.argv[1])
from snakernel.evaluation import actions, compile_ahead

compile_ahead.PROCESSES = int(sys.argv[2])
config, folder, kernel, out = sys.argv[3:]
asked = {"kernel": kernel, "out": out}
with actions.afterwards:
    sys.exit(actions.evaluate(config, folder, "", "", next_request=lambda: asked))
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    keys = {"eval_backend": "local", "num_trials": 2, "iterations": 30, "warmup_runs": 2, "max_workloads": 3}
    made = Bench(tmp_path_factory.mktemp("ahead"), eval_timeout_s=60.0, **keys).prepare()
    yield made
    made.close()


def verdict(bench: Bench, kernel: str, processes: int = 2) -> Evaluation:
    """The verdict of a standby that compiles ahead in that many processes."""
    path, out = bench.folder / "candidate.py", bench.folder / "evaluation.json"
    path.write_text(kernel)
    arguments = [SCRIPTS, processes, bench.config, bench.task, path, out]
    environment = clean_environment(dict(os.environ))  # the interpreter is for machines without a device
    subprocess.run([sys.executable, "-c", STANDBY, *map(str, arguments)], check=True, cwd=bench.folder, env=environment)
    return read_model(out, Evaluation)


def test_other_processes_compile_the_variants_of_the_next_workloads(bench: Bench) -> None:
    # Where a call is launched, its process goes on when all is there: the first is compiled by it, the others not.
    waits = KERNEL.replace(
        "    return y\n",
        "    while bool(y.abs().sum() > 0) and len(glob.glob(os.environ['TRITON_CACHE_DIR'] + '/*/*.cubin')) < 3:\n"
        "        pass\n"
        "    return y\n",
    )
    alone, ahead = verdict(bench, KERNEL, processes=0), verdict(bench, waits.replace("empty_like", "zeros_like"))
    assert alone.correct and ahead.correct, ahead.error
    compiled = [[int(line.split()[-1]) for line in one.log.splitlines()] for one in (alone, ahead)]
    assert compiled[0] == [0, 1, 2]
    assert compiled[1][1:] == [3, 3]
    assert len(ahead.kernels) == len(alone.kernels) == 3
    assert ahead.conditions is not None and ahead.conditions.other_processes == []


def test_the_processes_import_a_kernel_at_the_same_time(bench: Bench) -> None:
    meet = (
        "mark = os.environ['TRITON_CACHE_DIR'] + '/imported-'\n"
        "open(mark + str(os.getpid()), 'w').close()\n"
        "while len(glob.glob(mark + '*')) < 3:\n"
        "    pass\n"
    )
    evaluation = verdict(bench, KERNEL.replace("SEEN = set()\n", meet + "SEEN = set()\n"))
    assert evaluation.correct, evaluation.error


def test_a_kernel_that_waits_for_what_is_not_launched_there_is_judged_as_ever(bench: Bench) -> None:
    waits = KERNEL.replace("    return y\n", "    while not bool(y.abs().sum() > 0):\n        pass\n    return y\n")
    evaluation = verdict(bench, waits.replace("torch.empty_like", "torch.zeros_like"))
    assert evaluation.correct, evaluation.error


def test_a_kernel_that_dies_there_is_judged_as_ever(bench: Bench) -> None:
    dies = KERNEL.replace("    return y\n", "    if not bool(y.abs().sum() > 0):\n        os._exit(9)\n    return y\n")
    evaluation = verdict(bench, dies.replace("torch.empty_like", "torch.zeros_like"))
    assert evaluation.correct, evaluation.error
