"""Write the mini dataset: definitions, workloads, blobs and baseline solutions, the same bytes every time.

    python datasets/mini/make.py            write every file, and remove files of these folders that do not belong
    python datasets/mini/make.py --check    write nothing; exit 1 and name the files that differ, if any

Code lives in sources/{definition}/reference.py and baseline.py, where it can be read and linted; this script puts it
into the JSON files that FlashInfer-Bench reads. The random numbers come from `random.Random(seed).random()`, whose
sequence Python guarantees for a given seed; numpy's generators promise no such thing across versions.
"""

import argparse
import json
import random
import sys
import uuid
from pathlib import Path

import numpy as np
from safetensors.numpy import save

ROOT = Path(__file__).resolve().parent
MANAGED = ("definitions", "workloads", "blob", "solutions")  # answers/ and sources/ are not written from here
PAGE_SIZE = 16
SM_SCALE = 0.125  # 1 / sqrt(64)


def const(value: int, description: str) -> dict:
    """An axis of fixed size."""
    return {"type": "const", "value": value, "description": description}


def var(description: str) -> dict:
    """An axis that each workload binds to a size."""
    return {"type": "var", "description": description}


def tensor(shape: list[str] | None, dtype: str, description: str) -> dict:
    """A tensor over the named axes, or a scalar where shape is None."""
    return {"shape": shape, "dtype": dtype, "description": description}


DEFINITIONS = [
    {
        "name": "rmsnorm_h256",
        "op_type": "rmsnorm",
        "description": "Root mean square normalization of rows of 256 elements, scaled by a weight. "
        "Epsilon is 1e-6, inside the square root.",
        "tags": ["dataset:mini", "status:verified", "fi_api:flashinfer.norm.rmsnorm"],
        "axes": {
            "batch_size": var("Number of rows (tokens)."),
            "hidden_size": const(256, "Elements of a row, over which the mean square is taken."),
        },
        "inputs": {
            "hidden_states": tensor(["batch_size", "hidden_size"], "bfloat16", "The rows to normalize."),
            "weight": tensor(["hidden_size"], "bfloat16", "One factor a column."),
        },
        "outputs": {"output": tensor(["batch_size", "hidden_size"], "bfloat16", "The normalized, scaled rows.")},
    },
    {
        "name": "fused_add_rmsnorm_h512",
        "op_type": "rmsnorm",
        "description": "Adds a residual to the hidden states and returns the root mean square normalization of the "
        "sum, rows of 512 elements. Epsilon is 1e-6. The sum is taken in float32 and is not an output.",
        "tags": ["dataset:mini", "status:verified", "fused", "fi_api:flashinfer.norm.fused_add_rmsnorm"],
        "axes": {
            "batch_size": var("Number of rows (tokens)."),
            "hidden_size": const(512, "Elements of a row, over which the mean square is taken."),
        },
        "inputs": {
            "hidden_states": tensor(["batch_size", "hidden_size"], "bfloat16", "The rows to add to and normalize."),
            "residual": tensor(["batch_size", "hidden_size"], "bfloat16", "What is added before normalizing."),
            "weight": tensor(["hidden_size"], "bfloat16", "One factor a column."),
        },
        "outputs": {"output": tensor(["batch_size", "hidden_size"], "bfloat16", "The normalized, scaled sum.")},
    },
    {
        "name": "gemm_n128_k256",
        "op_type": "gemm",
        "description": "Matrix product C = A @ B.T with a fixed weight shape, accumulated in float32.",
        "tags": ["dataset:mini", "status:verified"],
        "axes": {
            "M": var("Rows of A and of C (tokens)."),
            "N": const(128, "Rows of B, columns of C."),
            "K": const(256, "Columns of A and of B, summed over."),
        },
        "inputs": {
            "A": tensor(["M", "K"], "float16", "Activations."),
            "B": tensor(["N", "K"], "float16", "Weight, one row an output column."),
        },
        "outputs": {"C": tensor(["M", "N"], "float16", "The product.")},
    },
    {
        "name": "gqa_paged_decode_h8_kv2_d64_ps16",
        "op_type": "gqa_paged",
        "description": "Decode step of grouped-query attention over a paged KV cache: one query token a sequence, "
        "8 query heads on 2 kv heads, pages of 16 tokens in any order, the last page of a sequence partly filled.",
        "tags": [
            "dataset:mini",
            "status:verified",
            "stage:decode",
            "fi_api:flashinfer.decode.BatchDecodeWithPagedKVCacheWrapper",
        ],
        "axes": {
            "batch_size": var("Number of sequences, one query token each."),
            "num_qo_heads": const(8, "Query heads; heads 4k to 4k + 3 read kv head k."),
            "num_kv_heads": const(2, "Key and value heads."),
            "head_dim": const(64, "Elements of a head."),
            "num_pages": var("Pages of the cache, used or not."),
            "page_size": const(PAGE_SIZE, "Tokens of a page."),
            "len_indptr": var("Entries of kv_indptr."),
            "num_kv_indices": var("Pages of all sequences together; a shared page counts once a sequence."),
        },
        "constraints": [
            "len_indptr == batch_size + 1",
            "num_kv_indices == kv_indptr[-1].item()",
        ],
        "inputs": {
            "q": tensor(["batch_size", "num_qo_heads", "head_dim"], "bfloat16", "Query tokens."),
            "k_cache": tensor(["num_pages", "page_size", "num_kv_heads", "head_dim"], "bfloat16", "Paged keys."),
            "v_cache": tensor(["num_pages", "page_size", "num_kv_heads", "head_dim"], "bfloat16", "Paged values."),
            "kv_indptr": tensor(["len_indptr"], "int32", "Sequence b owns entries kv_indptr[b]:kv_indptr[b + 1]."),
            "kv_indices": tensor(["num_kv_indices"], "int32", "Page numbers, in the order of each sequence's tokens."),
            "kv_last_page_len": tensor(["batch_size"], "int32", "Filled slots of each sequence's last page, 1 to 16."),
            "sm_scale": tensor(None, "float32", "Factor on the logits, usually 1 / sqrt(head_dim)."),
        },
        "outputs": {
            "output": tensor(["batch_size", "num_qo_heads", "head_dim"], "bfloat16", "Attention output."),
            "lse": tensor(["batch_size", "num_qo_heads"], "float32", "Log-sum-exp, to base 2, of the scaled logits."),
        },
    },
    {
        "name": "silu_and_mul_h384",
        "op_type": "activation",
        "description": "The activation of a SwiGLU MLP: silu of the left half of each row times the right half. "
        "384 columns come out: no power of two.",
        "tags": ["dataset:mini", "status:verified", "fused", "fi_api:flashinfer.activation.silu_and_mul"],
        "axes": {
            "num_tokens": var("Number of rows."),
            "hidden_size": const(384, "Columns of the output."),
            "gate_up_size": const(768, "Columns of the input: gate, then value."),
        },
        "constraints": ["gate_up_size == 2 * hidden_size"],
        "inputs": {"input": tensor(["num_tokens", "gate_up_size"], "float16", "Gate and value side by side.")},
        "outputs": {"output": tensor(["num_tokens", "hidden_size"], "float16", "silu(gate) * value.")},
    },
]

# definition -> (its variable axis, the sizes); every input of these is drawn by the benchmark
SIZES = {
    "rmsnorm_h256": ("batch_size", [1, 5, 16, 61, 128]),
    "fused_add_rmsnorm_h512": ("batch_size", [1, 3, 17, 64, 100]),
    "gemm_n128_k256": ("M", [1, 7, 32, 100, 257]),
    "silu_and_mul_h384": ("num_tokens", [1, 6, 31, 64, 130]),
}

# tokens of each sequence, full pages that all of them share (a common prompt), pages that nobody uses
ATTENTION = [
    {"lengths": [1], "shared": 0, "spare": 2},
    {"lengths": [37], "shared": 0, "spare": 3},
    {"lengths": [16, 1, 33], "shared": 0, "spare": 3},
    {"lengths": [35, 40, 47, 48, 63], "shared": 2, "spare": 4},
    {"lengths": [5, 17, 64, 100, 31, 48, 80, 129], "shared": 0, "spare": 7},
]


def workload_uuid(definition: str, number: int) -> str:
    """A fixed uuid for the number-th workload of a definition."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"snakernel/mini/{definition}/{number}"))


def page_table(lengths: list[int], shared: int, spare: int, seed: int) -> tuple[int, dict[str, np.ndarray]]:
    """Lay sequences of the given lengths into shuffled pages.

    Returns the number of pages of the cache, and kv_indptr: int32 [len(lengths) + 1], kv_indices: int32 [pages of
    all sequences], kv_last_page_len: int32 [len(lengths)].
    """
    counts = [-(-length // PAGE_SIZE) for length in lengths]
    num_pages = shared + sum(count - shared for count in counts) + spare
    rng = random.Random(seed)
    pool = [page for _, page in sorted((rng.random(), page) for page in range(num_pages))]
    prefix = [pool.pop() for _ in range(shared)]
    indptr, indices = [0], []
    for count in counts:
        indices += prefix + [pool.pop() for _ in range(count - shared)]
        indptr.append(len(indices))
    table = {
        "kv_indptr": np.array(indptr, dtype=np.int32),
        "kv_indices": np.array(indices, dtype=np.int32),
        "kv_last_page_len": np.array([(length - 1) % PAGE_SIZE + 1 for length in lengths], dtype=np.int32),
    }
    return num_pages, table


def workload_line(definition: str, number: int, axes: dict, inputs: dict) -> str:
    """One line of a workload file: a trace without solution and evaluation."""
    workload = {"axes": axes, "inputs": inputs, "uuid": workload_uuid(definition, number)}
    return json.dumps({"definition": definition, "workload": workload, "solution": None, "evaluation": None})


def random_workloads(definition: dict) -> list[str]:
    """The lines of a definition whose inputs are all drawn at random."""
    axis, sizes = SIZES[definition["name"]]
    inputs = {name: {"type": "random"} for name in definition["inputs"]}
    return [workload_line(definition["name"], n, {axis: size}, inputs) for n, size in enumerate(sizes, start=1)]


def attention_workloads(definition: dict) -> tuple[list[str], dict[str, bytes]]:
    """The lines of the attention definition, and the blobs that they name by path."""
    name = definition["name"]
    lines, blobs = [], {}
    for n, case in enumerate(ATTENTION, start=1):
        num_pages, table = page_table(**case, seed=1000 + n)
        path = f"blob/workloads/{definition['op_type']}/{name}/{name}_{workload_uuid(name, n)}.safetensors"
        blobs[path] = save(table)
        axes = {
            "batch_size": len(case["lengths"]),
            "num_pages": num_pages,
            "len_indptr": len(table["kv_indptr"]),
            "num_kv_indices": len(table["kv_indices"]),
        }
        inputs = {key: {"type": "random"} for key in ("q", "k_cache", "v_cache")}
        inputs |= {key: {"type": "safetensors", "path": f"./{path}", "tensor_key": key} for key in table}
        inputs["sm_scale"] = {"type": "scalar", "value": SM_SCALE}
        lines.append(workload_line(name, n, axes, inputs))
    return lines, blobs


def solution(definition: dict, code: str) -> dict:
    """The baseline solution of a definition."""
    return {
        "name": f"{definition['name']}_baseline_triton",
        "definition": definition["name"],
        "author": "baseline",
        "spec": {
            "language": "triton",
            "target_hardware": ["cuda", "cpu"],
            "entry_point": "main.py::run",
            "dependencies": [],
            "destination_passing_style": False,
        },
        "sources": [{"path": "main.py", "content": code}],
        "description": "A plain Triton kernel, nothing tuned: a starting point that is right on a GPU and in "
        "Triton's interpreter.",
    }


def pretty(value: dict) -> bytes:
    """JSON as it is written to definitions and solutions."""
    return (json.dumps(value, indent=2) + "\n").encode()


def build() -> dict[str, bytes]:
    """Every file of the dataset, by its path below the root."""
    files: dict[str, bytes] = {}
    for definition in DEFINITIONS:
        name, op_type = definition["name"], definition["op_type"]
        source = ROOT / "sources" / name
        reference = (source / "reference.py").read_text(encoding="utf-8")
        baseline = (source / "baseline.py").read_text(encoding="utf-8")
        if name in SIZES:
            lines = random_workloads(definition)
        else:
            lines, blobs = attention_workloads(definition)
            files |= blobs
        files[f"definitions/{op_type}/{name}.json"] = pretty(definition | {"reference": reference})
        files[f"workloads/{op_type}/{name}.jsonl"] = ("\n".join(lines) + "\n").encode()
        made = solution(definition, baseline)
        files[f"solutions/baseline/{op_type}/{name}/{made['name']}.json"] = pretty(made)
    return files


def compare(files: dict[str, bytes]) -> list[str]:
    """What is wrong with the files on disk, a line each; empty if nothing is."""
    problems = []
    for path, content in sorted(files.items()):
        if not (ROOT / path).is_file():
            problems.append(f"missing: {path}")
        elif (ROOT / path).read_bytes() != content:
            problems.append(f"differs: {path}")
    return problems + [f"does not belong: {path}" for path in strays(files)]


def strays(files: dict[str, bytes]) -> list[str]:
    """Files of the managed folders that this script does not write (solutions of other authors are left alone)."""
    found = []
    for folder in MANAGED:
        start = ROOT / folder / "baseline" if folder == "solutions" else ROOT / folder
        found += [path.relative_to(ROOT).as_posix() for path in start.rglob("*") if path.is_file()]
    return sorted(set(found) - set(files))


def main() -> int:
    """Write the files, or compare them; the exit status."""
    parser = argparse.ArgumentParser(description="Write the mini dataset, or say whether it is what would be written.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    args = parser.parse_args()
    files = build()
    if args.check:
        problems = compare(files)
        for problem in problems:
            print(problem, file=sys.stderr)
        print(f"{len(files)} files checked, {len(problems)} problems")
        return 1 if problems else 0
    for path in strays(files):
        (ROOT / path).unlink()
    for path, content in files.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_bytes(content)
    print(f"{len(files)} files, {sum(map(len, files.values()))} bytes written below {ROOT}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
