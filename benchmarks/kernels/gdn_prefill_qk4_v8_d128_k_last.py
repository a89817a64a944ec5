"""A plain kernel for the gated delta rule of prefill: a program has a few rows of one state, and walks the tokens.

Written for benchmarks/verdict_time.py, since the real solutions for this definition at hand do not build on an H200.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def gated_delta_rule(
    q, k, v, state, A_log, a, dt_bias, b, cu_seqlens, scale, output, new_state,
    HEADS: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    sequence, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows, columns = part * ROWS + tl.arange(0, ROWS), tl.arange(0, SIZE)
    here = ((sequence * HEADS + head) * SIZE + rows[:, None]) * SIZE + columns[None, :]
    kept = tl.load(state + here)
    decay, bias = tl.exp(tl.load(A_log + head)), tl.load(dt_bias + head)
    begin, end = tl.load(cu_seqlens + sequence), tl.load(cu_seqlens + sequence + 1)
    for token in range(begin, end):
        x = tl.load(a + token * HEADS + head).to(tl.float32) + bias
        softplus = tl.where(x > 20.0, x, tl.log(1.0 + tl.exp(x)))
        beta = tl.sigmoid(tl.load(b + token * HEADS + head).to(tl.float32))
        at = (token * (HEADS // GROUP) + head // GROUP) * SIZE + columns
        key, query = tl.load(k + at).to(tl.float32), tl.load(q + at).to(tl.float32)
        value = tl.load(v + (token * HEADS + head) * SIZE + rows).to(tl.float32)
        kept *= tl.exp(-decay * softplus)
        kept += (beta * (value - tl.sum(kept * key[None, :], 1)))[:, None] * key[None, :]
        told = scale * tl.sum(kept * query[None, :], 1)
        tl.store(output + (token * HEADS + head) * SIZE + rows, told.to(tl.bfloat16))
    tl.store(new_state + here, kept)


def run(q, k, v, state, A_log, a, dt_bias, b, cu_seqlens, scale):
    heads, size, rows = v.shape[1], v.shape[2], 8
    output, new_state = torch.empty_like(v), torch.empty_like(state)
    grid = (cu_seqlens.shape[0] - 1, heads, size // rows)
    gated_delta_rule[grid](
        q, k, v, state, A_log, a, dt_bias, b, cu_seqlens, float(scale), output, new_state,
        HEADS=heads, GROUP=heads // k.shape[1], SIZE=size, ROWS=rows, num_warps=1,
    )  # fmt: skip
    return output, new_state
