"""Inputs and expected outputs of a workload, drawn again from a seed wherever they are needed."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from flashinfer_bench.bench import BenchmarkConfig
    from flashinfer_bench.data import Definition, Workload

    from snakernel.evaluation.verdict import Settings


CHECKSUM_WORDS = 2**24
SETS = 2
"""Sets of memory that timed calls use in turn."""
MOVE = 7919
"""Elements by which the values of each timed call are moved on; a prime, so that small tensors meet no cycle early."""


@dataclass
class Draw:
    """One draw of a workload's inputs, and what the reference makes of them."""

    inputs: list[Any]
    """Tensors on the device, and Python scalars, in the definition's order."""
    expected: list[torch.Tensor]
    """What flashinfer-bench's evaluator compares with: the reference's outputs in the definition's order (sampling:
    the probabilities)."""


_BLOBS: dict[str, dict[str, torch.Tensor]] = {}
"""The tensors of the last workload that has any, by its uuid: each is drawn several times in a row."""


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
        if workload.uuid not in _BLOBS:
            _BLOBS.clear()
            _BLOBS[workload.uuid] = load_safetensors(definition, workload, dataset)
        # On the CPU they would be the inputs themselves: a kernel that writes to one changes all later draws.
        blobs = {name: one.clone() if kind == "cpu" else one for name, one in _BLOBS[workload.uuid].items()}
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
    """A sum over a tensor's bytes, eight at a time, each weighted by an odd number that follows from where it stands,
    modulo 2^64 on its device: it tells whether something in the tensor is another, or elsewhere."""
    import torch

    flat = tensor_bytes(tensor)
    whole = flat.numel() // 8 * 8
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    if whole < flat.numel():
        rest = flat[whole:].to(torch.int64)
        total = (rest * (2 * torch.arange(rest.numel(), device=flat.device) + 1)).sum()
    words = flat[:whole].view(torch.int64)
    for start in range(0, words.numel(), CHECKSUM_WORDS):
        part = words[start : start + CHECKSUM_WORDS]
        weights = torch.arange(2 * start + 1, 2 * (start + part.numel()) + 1, 2, device=flat.device)
        # The upper half is folded in, or the highest bits would be lost in the product.
        total = total + ((part ^ ((part >> 32) & 0xFFFFFFFF)) * weights).sum()
    return total


def checksums(tensors: list[torch.Tensor]) -> list[int]:
    """The checksums of several tensors, read from the device at once."""
    import torch

    return torch.stack([checksum(one) for one in tensors]).tolist() if tensors else []


def tensor_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's values as a flat uint8 tensor, in row-major order."""
    use = _torch()
    return use.view(use.contiguous(use.reshape(use.detach(tensor), -1)), use.uint8)


@functools.cache
def _torch() -> SimpleNamespace:
    """What is used between a kernel's calls, bound at first use, before a kernel is there that might put something else
    in its place."""
    import torch

    names = ("detach", "reshape", "contiguous", "view", "numel", "copy_", "fill_")
    methods = {name: getattr(torch._C.TensorBase, name) for name in names}
    more = {"at": torch._C.TensorBase.__getitem__, "empty": torch.empty, "uint8": torch.uint8, "Tensor": torch.Tensor}
    return SimpleNamespace(**methods, **more, device=torch.device)


def hash_tensors(tensors: list[torch.Tensor]) -> str:
    """What the values of tensors are known by: their checksums. It finds faults, not forgers."""
    return " ".join(f"{value % 2**64:016x}" for value in checksums(tensors))


class Contents:
    """What timed calls are given: a few sets of memory, and in each call values that no call has seen.

    A kernel that keeps results, by the address or by the values of its inputs, or that knows when it is timed, gains
    nothing by it: what a call returns may be looked at, and the values are those of no earlier one. New values are
    those of a draw of its own, moved on by another number of elements each time: one copy on the device.
    """

    def __init__(
        self,
        definition: Definition,
        workload: Workload,
        seed: int,
        kind: str,
        dataset: Path,
        *,
        checks: Sequence[tuple[int, int]] = (),
        keep: Callable[[int, Any], None] | None = None,
    ):
        """Draw.

        Args:
            definition: whose inputs they are.
            workload: of which shapes.
            seed: of the values that move.
            kind: cuda or cpu.
            dataset: where blobs are.
            checks: number of a timed call and seed of the draw that it gets, for calls whose outputs will be compared.
            keep: gets the number of such a check and what the call returned.
        """
        import torch

        def draw(seed: int) -> list[Any]:
            return draw_inputs(definition, workload, seed, kind, dataset)

        self._source = draw(seed)
        tensors = [position for position, value in enumerate(self._source) if isinstance(value, torch.Tensor)]
        names = list(definition.inputs)
        drawn = [
            at for at in tensors if names[at] not in workload.inputs or workload.inputs[names[at]].type == "random"
        ]
        # What is read from files is one tensor in all draws, but on the CPU.
        copied = tensors if kind == "cpu" else drawn
        self._sets = [
            [value.clone() if at in copied else value for at, value in enumerate(self._source)] for _ in range(SETS)
        ]
        # A distribution stays one only as a whole: the probabilities of sampling are not moved.
        self._moving = [] if definition.op_type == "sampling" else drawn
        # Drawn before the first call: a draw in between could be noticed by the kernel.
        self._checks = [(call, number, draw(seed)) for number, (call, seed) in enumerate(sorted(checks))]
        self._keep, self._due, self._calls = keep, None, 0
        self._output_bytes = output_bytes(definition, workload)

    @property
    def pending(self) -> bool:
        """A call whose outputs will be compared has not been made."""
        return bool(self._checks)

    def prepare(self, number: int, ending: bool) -> list[Any]:
        """The arguments of the next call: see :class:`snakernel.evaluation.timing.Contents`."""
        self._calls += 1
        memory = self._sets[self._calls % len(self._sets)]
        if number < 0:  # not timed: whatever values are there
            return memory
        poison(self._output_bytes, memory)
        if self._checks and (ending or number >= self._checks[0][0]):
            _, self._due, values = self._checks.pop(0)
            return overwrite(memory, values)
        use = _torch()
        for position in self._moving:
            there, values = use.view(memory[position], -1), use.view(self._source[position], -1)
            size = use.numel(values)
            step = self._calls * MOVE % max(size, 1)
            use.copy_(use.at(there, slice(step, None)), use.at(values, slice(None, size - step)))
            if step:
                use.copy_(use.at(there, slice(None, step)), use.at(values, slice(size - step, None)))
        return memory

    def keep(self, result: Any) -> None:
        """Hand over what the last call returned, where it is to be compared."""
        if self._due is not None and self._keep is not None:
            self._keep(self._due, result)
        self._due = None


def overwrite(old: list[Any], new: list[Any]) -> list[Any]:
    """New values in the memory of old ones."""
    use = _torch()
    for there, value in zip(old, new, strict=True):
        if isinstance(value, use.Tensor):
            use.copy_(there, value)
    return [there if isinstance(value, use.Tensor) else value for there, value in zip(old, new, strict=True)]


def poison(size: int, like: list[Any]) -> None:
    """Leave NaN in memory that the next allocations are likely to get: what a kernel does not write is then wrong."""
    use = _torch()
    device = next((one.device for one in like if isinstance(one, use.Tensor)), use.device("cpu"))
    blocks = [use.empty(size, dtype=use.uint8, device=device) for _ in range(2)]
    for one in blocks:
        use.fill_(one, 0xFF)
