"""The reference of a definition, measured once per task: reference/reference.json and the outputs that are kept."""

from __future__ import annotations

import time
from pathlib import Path

import safetensors.torch
import torch
from flashinfer_bench.bench.evaluators import resolve_evaluator
from flashinfer_bench.bench.evaluators.default import DefaultEvaluator
from flashinfer_bench.compile import BuilderRegistry
from flashinfer_bench.data import Definition, Workload

from snakernel.evaluation import devices, roofline, timing
from snakernel.evaluation import inputs as drawing
from snakernel.evaluation.verdict import Latency, Reference, ReferenceWorkload, Settings, expected_path
from snakernel.files import digest_texts

READ_BYTES_PER_S = 500e6
"""Outputs are kept where reading them at this rate is quicker than computing them again."""


def timed_seed(seed: int, workload: Workload) -> int:
    """The seed of the values that timed calls get."""
    return drawing.draw_seed(seed, workload, 1000)


def definition_hash(definition: Definition) -> str:
    """The hash that a definition is known by."""
    return digest_texts([definition.model_dump_json()])


def measure_reference(
    task_id: str, definition: Definition, workloads: list[Workload], settings: Settings, dataset: Path, folder: Path
) -> Reference:
    """Run the reference on every workload: expected outputs of each draw, and the latency.

    Args:
        task_id: the task.
        definition: whose reference it is; its code comes from the dataset and is trusted.
        workloads: what it runs on.
        settings: draws, calls and the device.
        dataset: where the workloads' blobs are.
        folder: gets expected/{uuid}.safetensors of the outputs that are kept.
    """
    kind = "cpu" if settings.eval_backend == "cpu" else "cuda"
    drawing.prepare(kind)
    keeps = _expects_outputs(definition)
    runnable = BuilderRegistry.get_instance().build_reference(definition)
    budget = settings.reference_max_mb * 2**20
    notes: list[str] = []
    records: list[ReferenceWorkload] = []
    peak, cache_bytes = None, 0
    if kind == "cuda":
        properties = torch.cuda.get_device_properties(0)
        peak, cache_bytes = roofline.peak_of(properties.name, roofline.copy_bandwidth), properties.L2_cache_size
    for workload in workloads:
        draws: list[drawing.Draw] = []
        begun = time.perf_counter()
        # One more than the trials: for the check after the timing.
        for number in range(settings.num_trials + 1):
            seed = drawing.draw_seed(settings.seed, workload, number)
            draws.append(drawing.draw_expected(definition, workload, seed, kind, dataset))
            if number:
                draws[number].inputs = []
        seconds = time.perf_counter() - begun
        size = sum(one.numel() * one.element_size() for draw in draws for one in draw.expected)
        stored = keeps and seconds > size / READ_BYTES_PER_S
        if stored and size > budget:
            stored = False
            notes.append(
                f"workload {workload.uuid}: expected outputs of {size / 2**20:.0f} MB are over what reference_max_mb "
                f"({settings.reference_max_mb}) leaves, so every evaluation computes them again ({seconds:.1f} s)"
            )
        if stored:
            budget -= size
            path = expected_path(folder, workload.uuid)
            path.parent.mkdir(parents=True, exist_ok=True)
            safetensors.torch.save_file(
                {f"{n}.{k}": one.contiguous() for n, draw in enumerate(draws) for k, one in enumerate(draw.expected)},
                path,
            )
        seed = timed_seed(settings.seed, workload)
        contents = drawing.Contents(definition, workload, seed, kind, dataset)
        with torch.no_grad():
            times = timing.Timer(kind).time(
                lambda arguments: runnable(*arguments),
                contents,
                warmup_runs=settings.warmup_runs,
                iterations=settings.iterations,
                budget_s=settings.timing_budget_s,
            )
        latency = Latency.of(times.calls_ms, times.host_ms, waits=times.waits)
        record = ReferenceWorkload(
            uuid=workload.uuid,
            axes=workload.axes,
            latency=latency,
            output_bytes=drawing.output_bytes(definition, workload),
            expected=[drawing.hash_tensors(draw.expected) for draw in draws] if stored else [],
            stored=stored,
        )
        if peak is not None:
            floor = roofline.floor_of(
                lambda inputs: runnable(*inputs), draws[0].inputs, latency.median_ms, peak, cache_bytes
            )
            record.floor_ms, record.floor = floor.milliseconds, floor.told
        records.append(record)
    return Reference(
        task_id=task_id,
        definition_sha256=definition_hash(definition),
        device=devices.describe(kind),
        versions=devices.versions(),
        timing=timing.METHODS[kind],
        settings=settings,
        workloads=records,
        notes=notes,
    )


def read_expected(
    folder: Path, record: ReferenceWorkload, draw: int, outputs: int, kind: str
) -> list[torch.Tensor] | None:
    """The kept outputs of one draw, on the device; None where they are not kept, or no longer what they were."""
    if not record.stored:
        return None
    try:
        with safetensors.safe_open(expected_path(folder, record.uuid), framework="pt") as file:
            found = [file.get_tensor(f"{draw}.{number}") for number in range(outputs)]
    except (OSError, safetensors.SafetensorError):
        return None
    found = [one.to(drawing.device_name(kind)) for one in found]
    return found if drawing.hash_tensors(found) == record.expected[draw] else None


def _expects_outputs(definition: Definition) -> bool:
    """Whether the definition's evaluator compares with the reference's outputs, and needs no inputs to do so."""
    return resolve_evaluator(definition).build_baseline.__func__ is DefaultEvaluator.build_baseline.__func__
