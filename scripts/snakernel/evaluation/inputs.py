"""Inputs and expected outputs of a workload, drawn again from a seed wherever they are needed."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from flashinfer_bench.bench import BenchmarkConfig
    from flashinfer_bench.data import Definition, Workload

    from snakernel.evaluation.verdict import Settings


@dataclass
class Draw:
    """One draw of a workload's inputs, and what the reference makes of them."""

    inputs: list[Any]
    """Tensors on the device, and Python scalars, in the definition's order."""
    expected: list[torch.Tensor]
    """What flashinfer-bench's evaluator compares with: the reference's outputs in the definition's order (sampling:
    the probabilities)."""


def draw_seed(seed: int, workload: Workload, draw: int) -> int:
    """The seed of one draw: the same for the same run's seed, workload and number of the draw."""
    return zlib.crc32(f"{seed}/{workload.uuid}/{draw}".encode())


def draw_inputs(definition: Definition, workload: Workload, seed: int, kind: str, dataset: Path) -> list[Any]:
    """Draw a workload's inputs through flashinfer-bench, on ``kind`` (cuda or cpu).

    Returns: tensors and Python scalars in the definition's order.
    """
    import torch
    from flashinfer_bench.bench.utils import gen_inputs, load_safetensors

    blobs: dict[str, torch.Tensor] = {}
    if any(spec.type == "safetensors" for spec in workload.inputs.values()):
        blobs = load_safetensors(definition, workload, dataset)
    torch.manual_seed(seed)
    return gen_inputs(definition, workload, device=device_name(kind), safe_tensors=blobs)


def draw_expected(definition: Definition, workload: Workload, seed: int, kind: str, dataset: Path) -> Draw:
    """The same inputs, and what flashinfer-bench's evaluator of the definition expects of them.

    The evaluator's own ``build_baseline`` draws one set of inputs right after the seed is set, which gives the inputs
    of :func:`draw_inputs`.
    """
    import torch
    from flashinfer_bench.bench import BenchmarkConfig
    from flashinfer_bench.bench.evaluators import resolve_evaluator

    torch.manual_seed(seed)
    baseline = resolve_evaluator(definition).build_baseline(
        definition=definition,
        workload=workload,
        cfg=BenchmarkConfig(num_trials=1, profile_baseline=False),
        device=device_name(kind),
        trace_set_root=dataset,
    )
    return Draw(inputs=baseline.inputs[0], expected=baseline.outputs[0])


def benchmark_config(settings: Settings) -> BenchmarkConfig:
    """The evaluator's settings as flashinfer-bench's evaluators take them."""
    from flashinfer_bench.bench import BenchmarkConfig

    return BenchmarkConfig(
        num_trials=settings.num_trials,
        atol=settings.atol,
        rtol=settings.rtol,
        required_matched_ratio=settings.required_matched_ratio,
        profile_baseline=False,
    )


def device_name(kind: str) -> str:
    """The device as torch names it; with one visible CUDA device, that is always number 0."""
    return "cuda:0" if kind == "cuda" else "cpu"


def prepare(kind: str) -> None:
    """Make this process able to use flashinfer-bench's evaluators on ``kind``.

    They synchronise CUDA after every call, also where the tensors are on the CPU and torch knows no CUDA.
    """
    import torch

    if kind == "cpu":
        torch.cuda.synchronize = lambda device=None: None


def output_bytes(definition: Definition, workload: Workload) -> int:
    """Bytes of all outputs of a workload, each rounded up to 256, so that slices of one buffer are aligned."""
    import math

    total = 0
    shapes = definition.get_output_shapes(workload.axes)
    for shape, dtype in zip(shapes, definition.torch_output_dtypes, strict=True):
        total += align(math.prod(shape or [1]) * dtype.itemsize)
    return total


def align(size: int) -> int:
    """The next multiple of 256."""
    return (size + 255) // 256 * 256


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """A sum over a tensor's bytes, eight at a time, on its device: it tells whether something was written to it."""
    import torch

    flat = tensor_bytes(tensor)
    whole = flat.numel() // 8 * 8
    return flat[:whole].view(torch.int64).sum() + flat[whole:].sum()


def tensor_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's values as a flat uint8 tensor, in row-major order."""
    import torch

    return tensor.detach().reshape(-1).contiguous().view(torch.uint8)


def hash_tensors(tensors: list[torch.Tensor]) -> str:
    """SHA-256 of the values of tensors, in row-major order."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor_bytes(tensor).cpu().numpy().tobytes())
    return sha.hexdigest()
