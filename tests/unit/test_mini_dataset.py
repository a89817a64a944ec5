"""datasets/mini is what its generator writes, loads in FlashInfer-Bench, and its baseline kernels pass on a CPU.

Everything that imports torch or triton happens in one subprocess (this file run as a script), because Triton reads
TRITON_INTERPRET when it is imported and other tests share pytest's process.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

MINI = Path(__file__).resolve().parents[2] / "datasets" / "mini"
NAMES = [
    "fused_add_rmsnorm_h512",
    "gemm_n128_k256",
    "gqa_paged_decode_h8_kv2_d64_ps16",
    "rmsnorm_h256",
    "silu_and_mul_h384",
]
DECODE = "gqa_paged_decode_h8_kv2_d64_ps16"


def listing(root: Path) -> list[str]:
    """Every path below root."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def copy_of(root: Path) -> Path:
    """A copy of the dataset, so that no test can leave anything in the original."""
    shutil.copytree(MINI, root, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> dict:
    """What the subprocess saw: the loaded trace set, and a record for each workload."""
    base = tmp_path_factory.mktemp("mini")
    root = copy_of(base / "dataset")
    before = listing(root)
    env = os.environ | {
        "TRITON_INTERPRET": "1",
        "FIB_CACHE_PATH": str(base / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run([sys.executable, __file__, str(root)], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert listing(root) == before, "loading or judging the dataset left files in it"
    return json.loads(done.stdout.splitlines()[-1])


def make(root: Path, *args: str) -> subprocess.CompletedProcess:
    """Run the generator that lies in root."""
    return subprocess.run([sys.executable, str(root / "make.py"), *args], capture_output=True, text=True, timeout=60)


def test_trace_set_loads_everything(judged):
    assert judged["definitions"] == NAMES
    assert judged["authors"] == {name: ["baseline"] for name in NAMES}
    assert judged["traces"] == 0
    counts = [sum(row["definition"] == name for row in judged["rows"]) for name in NAMES]
    assert all(4 <= count <= 5 for count in counts), counts
    uuids = [row["uuid"] for row in judged["rows"]]
    assert len(set(uuids)) == len(uuids)


@pytest.mark.parametrize("name", NAMES)
def test_every_axis_and_tensor_is_described(name):
    definition = json.loads(next(MINI.glob(f"definitions/*/{name}.json")).read_text())
    assert definition["description"] and definition["tags"]
    parts = [*definition["axes"].items(), *definition["inputs"].items(), *definition["outputs"].items()]
    assert [key for key, part in parts if not part.get("description")] == []


@pytest.mark.parametrize("name", NAMES)
def test_reference_agrees_with_torch(judged, name):
    """The references against torch's own operators, computed in float64 by a different path."""
    bad = [row for row in judged["rows"] if row["definition"] == name and not row["reference_ok"]]
    assert not bad, bad


@pytest.mark.parametrize("name", NAMES)
def test_baseline_passes_every_workload(judged, name):
    """flashinfer_bench's error statistics at its default tolerances, in Triton's interpreter."""
    rows = [row for row in judged["rows"] if row["definition"] == name]
    assert rows
    bad = [row for row in rows if row["problem"]]
    assert not bad, bad


@pytest.mark.parametrize("mistake", ["all pages full", "pages in order", "first page only", "kv heads swapped"])
def test_decode_workloads_catch(judged, mistake):
    """A kernel with this mistake fails on at least one workload of the decode definition."""
    assert judged["caught"][mistake] > 0, judged["caught"]


def test_check_passes():
    done = make(MINI, "--check")
    assert done.returncode == 0, done.stderr


def test_check_names_what_differs_and_make_repairs_it(tmp_path):
    root = copy_of(tmp_path / "mini")
    blob = next(root.glob("blob/**/*.safetensors"))
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x7f")
    next(root.glob("workloads/gemm/*.jsonl")).unlink()
    (root / "definitions" / "gemm" / "extra.json").write_text("{}")
    other = root / "solutions" / "someone" / "theirs.json"
    other.parent.mkdir()
    other.write_text("{}")

    done = make(root, "--check")
    assert done.returncode == 1
    assert sorted(done.stderr.splitlines()) == [
        f"differs: {blob.relative_to(root).as_posix()}",
        "does not belong: definitions/gemm/extra.json",
        "missing: workloads/gemm/gemm_n128_k256.jsonl",
    ]

    assert make(root).returncode == 0
    assert make(root, "--check").returncode == 0
    assert other.exists()
    assert listing(root / "workloads") == listing(MINI / "workloads")


def test_dataset_is_small():
    assert sum(path.stat().st_size for path in MINI.rglob("*") if path.is_file()) < 2_000_000


# From here on: what the subprocess runs.


def expected_outputs(name: str, inputs: dict) -> list:
    """The outputs by torch's own operators, in float64, as float64 tensors of the definition's output shapes."""
    import torch
    from torch.nn import functional

    values = {k: v.double() if getattr(v, "is_floating_point", bool)() else v for k, v in inputs.items()}
    if name == "rmsnorm_h256":
        return [functional.rms_norm(values["hidden_states"], (256,), values["weight"], eps=1e-6)]
    if name == "fused_add_rmsnorm_h512":
        return [functional.rms_norm(values["hidden_states"] + values["residual"], (512,), values["weight"], eps=1e-6)]
    if name == "gemm_n128_k256":
        return [functional.linear(values["A"], values["B"])]
    if name == "silu_and_mul_h384":
        gate, value = values["input"].chunk(2, dim=1)
        return [functional.silu(gate) * value]

    # decode: token by token through the page table; torch's attention for the output, a plain sum for the lse
    outputs, lses = [], []
    indptr, indices, last = (inputs[k].tolist() for k in ("kv_indptr", "kv_indices", "kv_last_page_len"))
    for b in range(len(last)):
        pages = indices[indptr[b] : indptr[b + 1]]
        places = [(page, slot) for page in pages[:-1] for slot in range(16)]
        places += [(pages[-1], slot) for slot in range(last[b])]
        keys = torch.stack([values["k_cache"][place] for place in places], dim=1).repeat_interleave(4, dim=0)
        vals = torch.stack([values["v_cache"][place] for place in places], dim=1).repeat_interleave(4, dim=0)
        query = values["q"][b].unsqueeze(1)
        scale = values["sm_scale"]
        outputs.append(functional.scaled_dot_product_attention(query, keys, vals, scale=scale).squeeze(1))
        lses.append(torch.log2(torch.exp((query * keys).sum(-1) * scale).sum(-1)))
    return [torch.stack(outputs), torch.stack(lses)]


def mistaken(mistake: str, inputs: dict) -> dict:
    """The inputs that make a correct decode compute what a kernel with the mistake would."""
    import torch

    changed = dict(inputs)
    if mistake == "all pages full":
        changed["kv_last_page_len"] = torch.full_like(inputs["kv_last_page_len"], 16)
    elif mistake == "pages in order":
        changed["kv_indices"] = torch.arange(len(inputs["kv_indices"]), dtype=torch.int32) % len(inputs["k_cache"])
    elif mistake == "first page only":
        changed["kv_indices"] = inputs["kv_indices"][inputs["kv_indptr"][:-1].long()]
        changed["kv_indptr"] = torch.arange(len(inputs["kv_indptr"]), dtype=torch.int32)
    else:
        changed["k_cache"] = inputs["k_cache"].flip(2)
    return changed


def problem_of(definition, got: list, want: list, shapes: list, cfg) -> str:
    """Why an evaluator would refuse the outputs; empty if it would not."""
    import torch
    from flashinfer_bench.bench.utils import compute_error_stats

    for name, x, y, shape, dtype in zip(
        definition.outputs, got, want, shapes, definition.torch_output_dtypes, strict=True
    ):
        if list(x.shape) != shape or list(y.shape) != shape:
            return f"{name}: shape {list(x.shape)}, reference {list(y.shape)}, definition {shape}"
        if x.dtype != dtype or y.dtype != dtype:
            return f"{name}: dtype {x.dtype}, reference {y.dtype}, definition {dtype}"
        if not torch.isfinite(x).all() or not torch.isfinite(y).all():
            return f"{name}: not finite"
        max_abs, max_rel, exceeds, _ = compute_error_stats(x, y, cfg)
        if exceeds:
            return f"{name}: max_abs {max_abs}, max_rel {max_rel}"
    return ""


def as_list(result) -> list:
    """A runnable's result as a list of tensors."""
    return list(result) if isinstance(result, (tuple, list)) else [result]


def judge(root: Path) -> dict:
    """Load the dataset and judge its references and baselines on the CPU."""
    import torch
    from flashinfer_bench.bench.config import BenchmarkConfig
    from flashinfer_bench.bench.utils import compute_error_stats, gen_inputs, load_safetensors
    from flashinfer_bench.compile import BuilderRegistry
    from flashinfer_bench.data import TraceSet

    torch.manual_seed(0)
    torch.set_num_threads(2)
    cfg = BenchmarkConfig()
    registry = BuilderRegistry.get_instance()
    trace_set = TraceSet.from_path(str(root))
    mistakes = ["all pages full", "pages in order", "first page only", "kv heads swapped"]
    rows, caught = [], dict.fromkeys(mistakes, 0)
    for name, definition in trace_set.definitions.items():
        reference = registry.build_reference(definition)
        baseline = registry.build(definition, trace_set.solutions[name][0])
        for trace in trace_set.workloads[name]:
            workload = trace.workload
            blobs = load_safetensors(definition, workload, root)
            args = gen_inputs(definition, workload, "cpu", blobs)
            untouched = [arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args]
            inputs = dict(zip(definition.inputs, args, strict=True))
            shapes = definition.get_output_shapes(workload.axes)
            want = as_list(reference(*args))
            begin = time.perf_counter()
            got = as_list(baseline(*args))
            seconds = time.perf_counter() - begin
            problem = problem_of(definition, got, want, shapes, cfg)
            if not all(torch.equal(a, b) for a, b in zip(args, untouched, strict=True) if isinstance(a, torch.Tensor)):
                problem = problem or "an input was written to"
            exact = expected_outputs(name, inputs)
            rows.append(
                {
                    "definition": name,
                    "uuid": workload.uuid,
                    "axes": workload.axes,
                    "seconds": round(seconds, 4),
                    "problem": problem,
                    "reference_ok": all(
                        torch.allclose(y.double(), z.to(y.dtype).double(), rtol=0.01, atol=1e-5)
                        for y, z in zip(want, exact, strict=True)
                    ),
                }
            )
            if name == DECODE:
                for mistake in mistakes:
                    wrong = as_list(reference(*mistaken(mistake, inputs).values()))
                    caught[mistake] += any(compute_error_stats(x, y, cfg)[2] for x, y in zip(wrong, want, strict=True))
    return {
        "definitions": sorted(trace_set.definitions),
        "authors": {name: [s.author for s in solutions] for name, solutions in sorted(trace_set.solutions.items())},
        "traces": sum(map(len, trace_set.traces.values())),
        "rows": rows,
        "caught": caught,
    }


if __name__ == "__main__":
    print(json.dumps(judge(Path(sys.argv[1]))))
