"""Kernels out of answers: shapes of answers that were really seen, and those that a parser gets wrong."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from snakernel.extraction import (
    Edit,
    Extraction,
    apply_edits,
    defines_entry,
    extract,
    find_duplicate,
    find_edits,
    find_kernel,
    find_plan,
    fingerprint,
)

KERNEL = "import torch\nimport triton\n\n\ndef run(x):\n    return torch.relu(x)\n"
DRAFT = "import torch\n\n\ndef run(x):\n    return x\n"


@pytest.mark.parametrize(
    "answer",
    [
        f"```python\n{KERNEL}```",
        f"```\n{KERNEL}```",
        f"```Python3 title=kernel.py\n{KERNEL}```",
        f"~~~python\n{KERNEL}~~~",
        f"Some prose.\n\n```python\n{KERNEL}```\n\nIt is `fast`.",
        f"A sketch:\n```\nload -> compute -> store\n```\nThe code:\n```python\n{KERNEL}```",
        f"```python\n{KERNEL}```\nUse it so:\n```python\ny = run(x)\n```",
        f"```bash\npip install triton\n```\n```python\n{KERNEL}```",
        f"First try:\n```python\n{DRAFT}```\nBetter:\n```python\n{KERNEL}```",
        f"<kernel>\n{KERNEL}</kernel>",
        f'<python_file name="main.py">\n{KERNEL}</python_file>',
        f"<answer>\n<thinking>\nhm\n</thinking>\n<code>\n{KERNEL}</code>\n</answer>",
        f"<answer>\n```python\n{KERNEL}```\n</answer>",
        f"<code>\n<![CDATA[{KERNEL}]]>\n</code>",
        KERNEL,
        f"Here is the kernel.\n\n{KERNEL}\nIt reads every element once.",
        f"1. The file:\n\n   ```python\n{textwrap.indent(KERNEL, '   ')}   ```\n",
        f"```python\n{KERNEL}",
        f"````markdown\nA fence inside: ```x```\n````\n```python\n{KERNEL}```",
    ],
)
def test_the_kernel_is_found(answer: str) -> None:
    code, _ = find_kernel(answer)
    assert code is not None
    assert code.strip() == KERNEL.strip()


def test_several_whole_kernels_are_told() -> None:
    _, warnings = find_kernel(f"```python\n{DRAFT}```\n```python\n{KERNEL}```")
    assert warnings == ["the answer holds 2 whole kernels; the last one was taken"]


@pytest.mark.parametrize(
    ("answer", "warning"),
    [
        ("", "the answer is empty"),
        ("  \n", "the answer is empty"),
        ("I cannot help with that.", "the answer holds no code"),
        ("```cpp\n#include <cuda.h>\n__global__ void k() {}\n```", "a Triton kernel in Python is needed"),
        ('<cuda_file name="k.cu">\n#include <cuda_fp16.h>\n__global__ void k() {}\n</cuda_file>', "C++ or CUDA"),
    ],
)
def test_no_kernel(answer: str, warning: str) -> None:
    code, extraction = extract(answer, None, None)
    assert extraction.kind == "none"
    assert warning in " ".join(extraction.warnings)
    assert code.startswith("# No kernel: ")


def test_a_cut_answer_is_taken_and_told() -> None:
    cut = f"```python\n{KERNEL}".rsplit("return", 1)[0]
    code, extraction = extract(cut, None, None, stop_reason="max_tokens")
    assert extraction.kind == "kernel"
    assert "def run(x):" in code
    assert any("has no end" in warning for warning in extraction.warnings)
    assert any("'max_tokens'" in warning for warning in extraction.warnings)


def test_a_broken_kernel_is_left_to_the_compiler() -> None:
    code, extraction = extract("```python\nimport triton\ndef run(x:\n    return x\n```", None, None)
    assert extraction.kind == "kernel"
    assert "def run(x:" in code


def test_a_kernel_without_run_is_told() -> None:
    _, extraction = extract("```python\nimport triton\ndef forward(x):\n    return x\n```", None, None)
    assert extraction.warnings == ["the code defines no top-level function 'run'"]


@pytest.mark.parametrize("code", ["run = compile_it()\n", "def run(a, b): return a\n"])
def test_an_entry_is_a_function_or_a_binding(code: str) -> None:
    assert defines_entry(code)


@pytest.mark.parametrize("code", ["def f():\n    def run(): pass\n", "x = 1\n", "def run(:\n", "\0"])
def test_what_is_no_entry(code: str) -> None:
    assert not defines_entry(code)


EDIT = """Two edits.
<reasoning_1>
smaller
</reasoning_1>
<old_str_1>
BLOCK = 64
</old_str_1>
<new_str_1>
BLOCK = 128
</new_str_1>

<reasoning_2>why</reasoning_2>
<old_str_2>return x</old_str_2>
<new_str_2>return x + 0</new_str_2>
"""


def test_edits_are_read_and_applied_in_order() -> None:
    found = find_edits(EDIT)
    assert found.edits == [Edit(1, "BLOCK = 64", "BLOCK = 128"), Edit(2, "return x", "return x + 0")]
    code, applied, warnings = apply_edits("BLOCK = 64\ndef run(x):\n    return x\n", found.edits)
    assert code == "BLOCK = 128\ndef run(x):\n    return x + 0\n"
    assert (applied, warnings) == (2, [])


def test_an_edit_sees_what_those_before_it_made() -> None:
    code, applied, _ = apply_edits("a = 1\n", [Edit(1, "a = 1", "b = 2"), Edit(2, "b = 2", "c = 3")])
    assert (code, applied) == ("c = 3\n", 2)


def test_an_edit_is_tried_trimmed() -> None:
    code, applied, warnings = apply_edits("    a = 1\n    b = 2\n", [Edit(1, "a = 1  ", "  a = 7\n")])
    assert (code, applied, warnings) == ("    a = 7\n    b = 2\n", 1, [])


@pytest.mark.parametrize(
    ("old", "reason"),
    [
        ("zzz", "its old text is not in the kernel"),
        ("a", "its old text stands 2 times in the kernel, it must be there exactly once"),
        ("  ", "its old text is empty"),
    ],
)
def test_an_edit_is_skipped_with_its_reason(old: str, reason: str) -> None:
    code, applied, warnings = apply_edits("a + a\n", [Edit(3, old, "x")])
    assert (code, applied) == ("a + a\n", 0)
    assert warnings == [f"edit 3 was skipped: {reason}"]


def test_an_unreadable_edit_is_told_and_the_others_are_applied() -> None:
    answer = "<old_str_1>\na\n</old_str_1>\n" + EDIT.replace("_2>", "_3>").replace("_1>", "_2>")
    code, extraction = extract(answer, "BLOCK = 64\n", 4)
    assert code == "BLOCK = 128\n"
    assert extraction.kind == "edits"
    assert (extraction.base, extraction.edits_applied) == (4, 1)
    assert "edit 1 was skipped: it has no whole <new_str_1>...</new_str_1>" in extraction.warnings


def test_a_fence_inside_an_edit_is_not_part_of_it() -> None:
    answer = "<old_str_1>\n```python\na = 1\n```\n</old_str_1>\n<new_str_1>\n```python\na = 2\n```\n</new_str_1>\n"
    assert find_edits(answer).edits == [Edit(1, "a = 1", "a = 2")]


def test_a_whole_kernel_in_place_of_edits_is_taken() -> None:
    code, extraction = extract(f"All new:\n```python\n{KERNEL}```", DRAFT, 1)
    assert (code, extraction.kind, extraction.base) == (KERNEL, "kernel", None)


def test_an_answer_of_no_use_leaves_the_kernel_unchanged() -> None:
    code, extraction = extract("I would change nothing.", KERNEL, 2)
    assert (code, extraction.kind, extraction.base) == (KERNEL, "unchanged", 2)
    assert extraction.warnings == ["the answer holds no code"]


@pytest.mark.parametrize(
    "answer",
    [
        "<old_str_1>\ndef run(x):\n    return torch.relu(x)\n</old_str_1>\n<new_str_1>\ndef run(x):\n    return 1 +",
        "```python\ndef helper(x):\n    return x\n```\nuse this helper",
        "<old_str_1>\nzzz\n</old_str_1>\n<new_str_1>\ndef run(x):\n    return 1\n</new_str_1>",
    ],
    ids=["cut inside an edit", "a helper alone", "an edit that does not fit"],
)
def test_a_piece_never_takes_the_place_of_a_whole_kernel(answer: str) -> None:
    code, extraction = extract(answer, KERNEL, 2)
    assert (code, extraction.kind) == (KERNEL, "unchanged")
    assert extraction.warnings


def test_a_whole_kernel_beside_edits_that_do_not_fit_is_taken() -> None:
    answer = f"<old_str_1>\nzzz\n</old_str_1>\n<new_str_1>\ny\n</new_str_1>\nThe whole file:\n```python\n{KERNEL}```"
    code, extraction = extract(answer, DRAFT, 1)
    assert (code, extraction.kind) == (KERNEL, "kernel")


def test_a_corrected_edit_replaces_its_draft() -> None:
    edit = "<old_str_1>\na = 1\n</old_str_1>\n<new_str_1>\na = {}\n</new_str_1>\n"
    code, extraction = extract(edit.format(2) + "Wait, corrected:\n" + edit.format(3), "a = 1\n", 1)
    assert code == "a = 3\n"
    assert extraction.warnings == ["edit 1 stands there more than once; its last version was taken"]


def test_tags_in_a_list_and_on_one_line_are_read() -> None:
    answer = "1. <old_str_1>a = 1</old_str_1><new_str_1>a = 2</new_str_1>"
    assert find_edits(answer.replace("1. ", "- ")).edits == [Edit(1, "a = 1", "a = 2")]


def test_fences_in_a_docstring_do_not_end_a_kernel() -> None:
    kernel = KERNEL.replace("    return", '    """Doc.\n\n    ```\n    run(x)\n    ```\n    """\n    return')
    assert find_kernel(f"Text.\n```python\n{kernel}```\nMore.")[0] == kernel


def test_real_transcripts(real_data: Path) -> None:
    """108 real answers, all CUDA in XML tags: none may be taken for Python, and each says what is missing."""
    answers = sorted(real_data.glob("transcripts/*/*/*/raw_response.txt"))
    assert len(answers) == 108
    for path in answers:
        code, extraction = extract(path.read_text(), None, None)
        assert extraction.kind == "none", path
        assert "a Triton kernel in Python is needed" in code, path


def test_real_kernels_come_back_from_every_wrapping(real_data: Path) -> None:
    """Every real Python kernel, in the wrappings that models use, comes out as it went in."""
    seen = 0
    for path in sorted(real_data.glob("solutions/*/*/*/*.json")):
        solution = json.loads(path.read_text())
        if solution["spec"]["language"] not in ("triton", "python"):
            continue
        code = solution["sources"][0]["content"].strip("\n") + "\n"
        for text in (
            f"Prose.\n```python\n{code}```\nMore.",
            f'<python_file name="main.py">\n{code}</python_file>',
            f"Here it is:\n\n{code}",
            f"```python\n{code}",
        ):
            assert find_kernel(text)[0] == code, path
        seen += 1
    assert seen >= 10


def test_a_plan_is_read_and_is_no_code() -> None:
    plan = "<bottleneck>two passes\n over memory</bottleneck>\n<idea>\nkeep the row in registers\n</idea>\n"
    found = find_plan(f"Well. {plan} <idea>another</idea>")
    assert (found.bottleneck, found.idea) == ("two passes over memory", "keep the row in registers")
    assert find_plan("<bottleneck>memory</bottleneck> and no idea") is None
    assert len(find_plan(f"<idea>{'x' * 999}</idea>").idea) == 200
    code, extraction = extract(f"{plan}\n{KERNEL}", None, None)
    assert (code, extraction.plan) == (KERNEL, found)
    assert extract("<idea>\nimport os\n\ndef run(x): pass\n</idea>", None, None)[1].kind == "none"


def test_a_fingerprint_is_that_of_the_program() -> None:
    same = '"""A kernel."""\nimport torch\nimport triton\ndef run( x ):\n  """Docs."""\n  # why\n  return torch.relu(x)'
    assert fingerprint(same) == fingerprint(KERNEL) is not None
    assert fingerprint(KERNEL.replace("relu", "abs")) != fingerprint(KERNEL)
    assert fingerprint("x = 1") is fingerprint("def run(:") is None


def test_a_duplicate_is_that_of_the_first_step_that_had_the_program() -> None:
    def found(number: int, program: str | None, *before: Extraction) -> Extraction:
        return find_duplicate(Extraction(kind="kernel", fingerprint=program), number, list(before))

    first, second = found(1, "a"), found(2, "b")
    third = found(3, "a", first, second)
    assert (third.duplicate_of, third.programs) == (1, {"a": 1, "b": 2})
    assert (found(4, "b", third).duplicate_of, found(4, "c", third).duplicate_of) == (2, None)
    assert found(4, None, third).programs == third.programs
