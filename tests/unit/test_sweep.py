"""Tunables, the optimiser and the steps that ask no model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from declare_tunables import declare
from snakernel.config import load_config
from snakernel.errors import UserError
from snakernel.files import write_text
from snakernel.llm.base import Request
from snakernel.prompts import render
from snakernel.search import create_strategy
from snakernel.search.trials import Trials, given_tunables
from snakernel.search.tunables import TunablesError, read_tunables, suggest
from snakernel.skipping import NotAsked
from unit.test_prompts import CONFIG, TASK, add_step, folder

__all__ = ["folder"]
GEMM_TUNED = ("BLOCK_SIZE_M", "BLOCK_SIZE_K", "NUM_STAGES", "NUM_WARPS")
KERNEL = '''"""Größe."""
TUNABLES = {"BLOCK": [64, 16, 32], "FAST": [True, False], "MODE": ["a", "b"]}
BLOCK: int = 32; FAST = True
MODE = tl.constexpr("b")


def run(A, B):
    BLOCK = 1
'''


def test_a_kernels_tunables_are_read_and_replaced() -> None:
    tunables = read_tunables(KERNEL)
    assert tunables.space == {"BLOCK": [16, 32, 64], "FAST": [True, False], "MODE": ["b", "a"][::-1]}
    assert tunables.values == {"BLOCK": 32, "FAST": True, "MODE": "b"}
    assert tunables.size == 12
    other = {"BLOCK": 64, "FAST": False, "MODE": "a"}
    changed = KERNEL.replace("= 32; FAST = True", "= 64; FAST = False").replace('constexpr("b")', "constexpr('a')")
    assert tunables.kernel(other) == changed
    assert read_tunables(changed).values == other
    assert read_tunables("def run(): pass") is None


def test_a_value_that_is_not_in_the_list_joins_it() -> None:
    assert read_tunables("TUNABLES = {'B': [1, 4]}\nB = 2\n").space == {"B": [1, 2, 4]}


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("TUNABLES = {", "the kernel is not Python"),
        ("TUNABLES = make()", "must be a literal dictionary"),
        ("TUNABLES = {}", "must be a literal dictionary"),
        ("TUNABLES = {'B': 3}\nB = 3", "'B' must have a list"),
        ("TUNABLES = {'B': [1e999]}\nB = 3", "'B' must have a list of finite numbers"),
        ("TUNABLES = {'B': ['\\ud800']}\nB = 3", "'B' must have a list"),
        ("TUNABLES = {3: [1]}", "3 must be assigned at the top level once"),
        ("TUNABLES = {'B': [3]}", "'B' must be assigned at the top level once, not 0 times"),
        ("TUNABLES = {'B': [3]}\nB = 3\nB = 4", "not 2 times"),
        ("TUNABLES = {'B': [3]}\nB = x", "'B' must be assigned a literal"),
    ],
)
def test_what_is_wrong_with_a_declaration(code: str, told: str) -> None:
    with pytest.raises(TunablesError, match=told):
        read_tunables(code)


def test_suggestions_are_new_repeatable_and_end_with_the_last_combination() -> None:
    tunables = read_tunables(KERNEL)
    trials = [(tunables.values, 1.0)]
    while (values := suggest(tunables, trials, seed=3)) is not None:
        assert values == suggest(tunables, trials, seed=3)
        assert values not in [tried for tried, _ in trials]
        trials.append((values, float(values["BLOCK"])))
    assert len(trials) == 12
    # Steps that are asked at the same time take different ones, also of the last.
    together = [suggest(tunables, trials[:9], seed=3, skip=skip) for skip in range(4)]
    assert together[3] is None
    assert len({tuple(values.values()) for values in together[:3]}) == 3


def test_the_optimiser_finds_what_is_good_sooner_than_chance() -> None:
    """On a space of 400 with one best corner, 30 trials: random search reaches 0.93 in the mean."""
    names = {"A": 20, "B": 20}
    text = f"TUNABLES = { ({name: list(range(size)) for name, size in names.items()}) }\nA = 0\nB = 0\n"
    tunables = read_tunables(text)

    def speedup(values: dict) -> float:
        return 1 - (abs(values["A"] - 15) + abs(values["B"] - 4)) / 30

    best = []
    for seed in range(8):
        trials = [(tunables.values, speedup(tunables.values))]
        for number in range(29):
            values = suggest(tunables, trials, seed=100 * seed + number)
            trials.append((values, speedup(values)))
        best.append(max(score for _, score in trials))
    assert sum(best) / len(best) > 0.95


def test_the_sweep_tells_all_trials_to_one_optimiser() -> None:
    strategy = create_strategy(load_config({"agent_type": "sweep", "sweep_path": "x", "parallel_proposals": 3}), TASK)
    assert [strategy.reads(step) for step in range(1, 8)] == [0, 0, 0, 3, 3, 3, 6]
    assert [strategy.ahead(step) for step in range(1, 8)] == [0, 0, 1, 0, 1, 2, 0]
    assert [strategy.base(step, strategy.start()) for step in (1, 3, 4)] == [None, None, 1]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"agent_type": "sweep"}, "sweep_path: agent_type sweep needs"),
        ({"agent_type": "sweep", "sweep_path": "x", "islands": 2}, "islands: is for agent_type iterative and evolve"),
    ],
)
def test_what_a_sweep_needs(values: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_config(values)


def test_a_sweep_starts_from_the_given_kernel_and_ends_when_all_was_tried(folder: Path, tmp_path: Path) -> None:
    kernels = tmp_path / "kernels"
    write_text(kernels / "gemm_n128_k256.py", "TUNABLES = {'B': [1, 2]}\nB = 2\n\n\ndef run(A, B):\n    pass\n")
    keys = {"agent_type": "sweep", "sweep_path": str(kernels), "total_steps": 3, "eval_backend": "cpu"}
    config = load_config(keys)
    strategy = create_strategy(config, TASK)
    state = strategy.start()
    for number, (value, speedup) in enumerate([(2, 1.5), (1, 2.5)], 1):
        text, question = render(config, strategy, state, folder, number)
        assert (question.role, question.parameters) == ("sweep", {"B": value})
        given = given_tunables(config, TASK, "gemm_n128_k256").code
        answer = Trials(given).ask(
            Request(prompt=text, model=question.model, max_completion_tokens=1, question=question)
        )
        assert f"\nB = {value}\n" in answer.text and answer.cost_usd == 0
        attempt = add_step(folder, number, speedup, given.replace("B = 2", f"B = {value}"))
        state = strategy.update(state, attempt.model_copy(update={"parameters": question.parameters}))
    assert "| 1 | 2 | 1.5x |" in text
    with pytest.raises(NotAsked, match="All 2 combinations were tried"):
        render(config, strategy, state, folder, 3)
    for path, code, told in (
        ("none.py", "", "holds no kernel"),
        ("gemm_n128_k256.py", "x = 1\n", "declares no TUNABLES"),
    ):
        write_text(tmp_path / told / path, code)
        with pytest.raises(UserError, match=told):
            given_tunables(config.model_copy(update={"sweep_path": str(tmp_path / told)}), TASK, "gemm_n128_k256")


def test_an_evolved_kernel_is_swept_and_its_best_trial_enters_the_pool(folder: Path) -> None:
    config = CONFIG.model_copy(update={"agent_type": "evolve", "sweep_steps": 3, "pool_size": 2, "total_steps": 2})
    strategy = create_strategy(config, TASK)
    assert strategy.steps == 8
    state = strategy.start()
    assert "TUNABLES = " in render(config, strategy, state, folder, 1)[0]
    code = "TUNABLES = {'B': [1, 2, 3]}\nB = 2\n"
    for number, speedup in enumerate([1.5, 1.0, 2.5, None], 1):
        text, question = render(config, strategy, state, folder, number)
        assert question.role == ("proposer" if number == 1 else "sweep")
        if number > 1:
            assert (question.base, question.shown) == (1, list(range(1, number)))
        attempt = add_step(folder, number, speedup, code)
        state = strategy.update(state, attempt.model_copy(update={"parameters": question.parameters}))
    assert question.parameters is None and "All 3 combinations were tried." in text
    assert [one.step for one in state.islands[0].proposals] == [3]
    assert strategy.role(5, state) == "proposer"


@pytest.mark.parametrize("code", ["A = 1\n", "TUNABLES = 3\n"])
def test_a_kernel_that_cannot_be_swept_costs_nothing(folder: Path, code: str) -> None:
    config = CONFIG.model_copy(update={"sweep_steps": 1})
    strategy = create_strategy(config, TASK)
    state = strategy.update(strategy.start(), add_step(folder, 1, 1.5, code))
    text, question = render(config, strategy, state, folder, 2)
    assert (question.role, question.parameters, question.base) == ("sweep", None, 1)
    assert "TUNABLES" in text
    answer = Trials(code).ask(Request(prompt=text, model="", max_completion_tokens=1, question=question))
    assert "```" not in answer.text


LAUNCHES = '''"""Two kernels."""
import triton

HIDDEN = 4096


@triton.autotune(
    configs=[
        triton.Config({"BLOCK_M": 64, "HID": HIDDEN}, num_warps=4),
        triton.Config({"BLOCK_M": 128, "HID": HIDDEN}, num_warps=8),
    ],
    key=["M"],
)
@triton.jit
def first(x, BLOCK_M, HID):
    BLOCK_IN = 7


@triton.jit
def second(x, BLOCK):
    pass


def run(x):
    BLOCK = 256  # ö
    first[(1,)](x)
    second[(1,)](x, BLOCK=BLOCK, num_stages=2)
    second[(1,)](
        x,
        BLOCK=512,
    )
'''


def test_tunables_are_declared_for_what_stands_in_launches() -> None:
    declared = declare(LAUNCHES, "kernel.py")
    tunables = read_tunables(declared)
    assert tunables.values == {
        "TUNED_BLOCK_M": 64,
        "TUNED_NUM_WARPS": 4,
        "TUNED_BLOCK": 256,
        "TUNED_BLOCK_2": 512,
        "TUNED_NUM_STAGES": 2,
        "TUNED_NUM_STAGES_2": 3,
    }
    assert tunables.space["TUNED_BLOCK_M"] == [32, 64, 128, 256]
    assert tunables.space["TUNED_BLOCK"] == [32, 64, 128, 256, 512, 1024, 2048]
    for line in (
        "    configs=[triton.Config({'BLOCK_M': TUNED_BLOCK_M, 'HID': HIDDEN}, num_warps=TUNED_NUM_WARPS)],",
        "    BLOCK = TUNED_BLOCK  # ö",
        "    first[(1,)](x)",
        "    second[(1,)](x, BLOCK=BLOCK, num_stages=TUNED_NUM_STAGES, num_warps=TUNED_NUM_WARPS)",
        "        BLOCK=TUNED_BLOCK_2, num_warps=TUNED_NUM_WARPS, num_stages=TUNED_NUM_STAGES_2,",
        "    BLOCK_IN = 7",
    ):
        assert line in declared.splitlines()
    assert declare(declared, "kernel.py") == declared
    with pytest.raises(UserError, match="nothing to tune"):
        declare("def run(): pass\n", "kernel.py")


def test_a_block_that_covers_a_constant_axis_is_not_tunable() -> None:
    """512 is the next power of two of the axis; 256 is in a loop, so it may be any; without axes, all are declared."""
    code = LAUNCHES.replace("    BLOCK_IN = 7", "    tl.arange(0, BLOCK_M)").replace("BLOCK=512", "BLOCK_N=512")
    code = code.replace("    pass\n", "    for n in range(0, 256, BLOCK): pass\n", 1)
    declared = declare(code, "kernel.py", {"M": None, "N": 300, "K": 256})
    assert "# BLOCK_N = 512 is not among them: it spans the axis N = 300.\n" in declared
    assert "TUNED_BLOCK_N" not in declared and "        BLOCK_N=512, num_warps=TUNED_NUM_WARPS," in declared
    assert read_tunables(declared).values["TUNED_BLOCK"] == 256
    assert "TUNED_BLOCK_N = 512\n" in declare(code, "kernel.py")


def test_blocks_of_real_kernels_that_cover_an_axis(real_data: Path, tmp_path: Path) -> None:
    """gemm_n128's kernel takes all of N at once, fused_add_rmsnorm's a whole row; the attention's goes by tiles."""
    command = [sys.executable, str(REPOSITORY / "scripts" / "declare_tunables.py")]
    subprocess.run([*command, "--solutions", str(real_data / "solutions"), "--out", str(tmp_path)], check=True)
    space = {path.stem: read_tunables(path.read_text()).space for path in tmp_path.glob("*.py")}
    assert set(space["gemm_n128_k2048"]) == {f"TUNED_{name}" for name in GEMM_TUNED}
    assert "TUNED_BLOCK_SIZE_N" in space["gemm_n2048_k4096"]
    assert set(space["fused_add_rmsnorm_h7168"]) == {"TUNED_NUM_WARPS", "TUNED_NUM_STAGES"}
    assert "TUNED_BLOCK_T" in space["gqa_paged_decode_h32_kv8_d128_ps1"]
