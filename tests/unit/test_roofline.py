"""The least time for a workload, and the sums that tell whether a tensor was written to."""

from __future__ import annotations

import pytest
import torch
from snakernel.evaluation import roofline
from snakernel.evaluation.inputs import checksums

PEAK = roofline.Peak(1e9, 1e15, "a test")


def floor(run, *inputs: torch.Tensor, reference_ms: float = 1.0) -> float:
    return roofline.floor_of(lambda given: run(*given), inputs, reference_ms, PEAK, cache_bytes=0).milliseconds


@pytest.mark.parametrize(
    ("name", "bandwidth"),
    [
        ("NVIDIA H200", 4.8e12),
        ("NVIDIA GH200 480GB", 4.9e12),
        ("NVIDIA H100 80GB HBM3", 3.35e12),
        ("NVIDIA H100 PCIe", 2.0e12),
        ("NVIDIA A100-SXM4-80GB", 2.04e12),
        ("NVIDIA L4", 0.3e12),
        ("NVIDIA L40", 0.864e12),
        ("NVIDIA L40S", 0.864e12),
        ("NVIDIA RTX A6000", 0.768e12),
    ],
)
def test_a_device_is_known_by_its_whole_name(name: str, bandwidth: float) -> None:
    assert roofline.peak_of(name, lambda: 0.0).bytes_per_s == bandwidth


def test_an_unknown_device_is_measured() -> None:
    assert roofline.peak_of("NVIDIA Something", lambda: 0.85e12).bytes_per_s == pytest.approx(1e12)


def test_inputs_count_that_all_matter() -> None:
    x = torch.randn(1024, 512)
    size = 4 * x.numel()
    assert floor(lambda x: x * 2, x) == pytest.approx((size * roofline.SURE_SHARE + size) / 1e9 * 1e3)
    assert floor(lambda x: x[:1] * 2, x) == pytest.approx(512 * 4 / 1e9 * 1e3)
    assert floor(lambda x: x.sum(0), x, reference_ms=1000.0) == pytest.approx(512 * 4 / 1e9 * 1e3)


def test_a_reference_that_is_not_the_same_twice_makes_no_input_count() -> None:
    x = torch.randn(1024, 512)
    assert floor(lambda x: torch.randn(4), x) == pytest.approx(16 / 1e9 * 1e3)
    assert floor(lambda x: torch.full((4,), float("nan")), x) == pytest.approx(16 / 1e9 * 1e3)


def test_inputs_are_left_as_they_were() -> None:
    x = torch.randn(1024, 512)
    before = x.clone()
    floor(lambda x: x * 2, x)
    assert torch.equal(x, before)


def test_matrix_products_are_operations() -> None:
    a, b = torch.randn(64, 64), torch.randn(64, 64)
    peak = roofline.Peak(1e30, 1e9, "a test")
    found = roofline.floor_of(lambda given: given[0] @ given[1], (a, b), 1.0, peak, cache_bytes=0)
    assert found.milliseconds == pytest.approx(2 * 64**3 / 1e9 * 1e3)


@pytest.mark.parametrize("size", [8, 16, 21, 4096])
def test_sums_see_what_is_changed_moved_or_inverted(size: int) -> None:
    x = torch.arange(size, dtype=torch.uint8)
    changed, inverted = x.clone(), ~x
    changed[-1] += 1
    moved = x.clone()
    moved[:8], moved[-8:] = x[-8:], x[:8].clone()
    sums = checksums([x, changed, inverted, moved] if size > 8 else [x, changed, inverted])
    assert len(set(sums)) == len(sums)
    assert checksums([x.clone()]) == sums[:1]
