"""The zoo of tests/zoo.py on a real CUDA device."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import zoo
from evaluating import Bench
from snakernel.evaluation.devices import cuda_devices
from snakernel.evaluation.verdict import Evaluation

pytestmark = pytest.mark.skipif(not cuda_devices(), reason="there is no CUDA device on this machine")
SPIN = "torch.cuda._sleep(4_000_000)"
"""Over a millisecond of the device's time, whatever its clock."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    keys = {"eval_backend": "local", "num_trials": 3, "iterations": 60, "warmup_runs": 5, "max_workloads": 2}
    folder = tmp_path_factory.mktemp("zoo")
    made = Bench(folder, eval_timeout_s=60.0, memory_limit_gb=6.0, baseline_author="nobody", **keys).prepare()
    yield made
    made.close()


def verdict(bench: Bench, kernel: str) -> Evaluation:
    (bench.folder / "candidate.py").write_text(kernel)
    return bench.judge(kernel="candidate.py")


@pytest.mark.parametrize("name", zoo.CHEATS)
def test_a_cheat_does_not_pass(bench: Bench, name: str) -> None:
    cheat = zoo.CHEATS[name]
    evaluation = verdict(bench, cheat.kernel.replace("2 << 30", "8 << 30"))
    assert evaluation.status in cheat.statuses, evaluation.error
    assert (evaluation.correct, evaluation.speedup) == (False, None)
    assert cheat.told in evaluation.error


@pytest.mark.parametrize("name", zoo.NO_GAIN)
def test_keeping_results_by_value_gains_nothing(bench: Bench, name: str) -> None:
    body = zoo.NO_GAIN[name].replace("time.sleep(0.01)", SPIN)
    evaluation = verdict(bench, zoo.instead(body, "import time\nKEPT = {}\n"))
    assert evaluation.correct, evaluation.error
    assert all(one.latency.median_ms > 1 for one in evaluation.workloads)


@pytest.mark.parametrize("name", zoo.TIMER_PATCHES)
def test_a_timer_that_is_tampered_with_tells_the_truth(bench: Bench, name: str) -> None:
    evaluation = verdict(bench, zoo.honest_but(SPIN, zoo.TIMER_PATCHES[name]))
    assert evaluation.correct, evaluation.error
    assert all(one.latency.median_ms > 1 for one in evaluation.workloads)


@pytest.mark.parametrize("name", [*zoo.STYLES, *zoo.DEVICE_STYLES])
def test_an_honest_style_passes(bench: Bench, name: str) -> None:
    evaluation = verdict(bench, (zoo.STYLES | zoo.DEVICE_STYLES)[name])
    assert evaluation.correct, evaluation.error


def test_what_a_kernel_takes_of_the_device_is_recorded(bench: Bench) -> None:
    (kernel,) = verdict(bench, zoo.HONEST).kernels
    assert (kernel.name, kernel.warps, kernel.spills) == ("kernel", 4, 0)
    assert kernel.registers > 0


def test_a_latency_that_the_device_cannot_reach_is_refused(bench: Bench) -> None:
    path = bench.task / "reference" / "reference.json"
    kept = path.read_text()
    assert '"floor_ms"' in kept
    reference = json.loads(kept)
    reference["workloads"][0]["floor_ms"] = 10.0
    del reference["checksum"]
    path.write_text(json.dumps(reference))
    evaluation = verdict(bench, zoo.HONEST)
    path.write_text(kept)
    assert evaluation.status == "REJECTED"
    assert "is under what" in evaluation.error
