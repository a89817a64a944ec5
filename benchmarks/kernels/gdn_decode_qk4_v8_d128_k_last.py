"""A plain kernel for one step of the gated delta rule: a program has some rows of one state.

Written for benchmarks/latency_noise.py: of the real solutions for this definition at hand, the one that builds on an
H200 waits for the device in every call.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def gated_delta_step(
    q, k, v, state, A_log, a, dt_bias, b, scale, output, new_state,
    HEADS: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    sequence, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows, columns = part * ROWS + tl.arange(0, ROWS), tl.arange(0, SIZE)
    here = ((sequence * HEADS + head) * SIZE + rows[:, None]) * SIZE + columns[None, :]
    kept = tl.load(state + here)
    x = tl.load(a + sequence * HEADS + head).to(tl.float32) + tl.load(dt_bias + head)
    softplus = tl.where(x > 20.0, x, tl.log(1.0 + tl.exp(x)))
    beta = tl.sigmoid(tl.load(b + sequence * HEADS + head).to(tl.float32))
    at = (sequence * (HEADS // GROUP) + head // GROUP) * SIZE + columns
    key, query = tl.load(k + at).to(tl.float32), tl.load(q + at).to(tl.float32)
    value = tl.load(v + (sequence * HEADS + head) * SIZE + rows).to(tl.float32)
    kept *= tl.exp(-tl.exp(tl.load(A_log + head)) * softplus)
    kept += (beta * (value - tl.sum(kept * key[None, :], 1)))[:, None] * key[None, :]
    told = scale * tl.sum(kept * query[None, :], 1)
    tl.store(output + (sequence * HEADS + head) * SIZE + rows, told.to(tl.bfloat16))
    tl.store(new_state + here, kept)


def run(q, k, v, state, A_log, a, dt_bias, b, scale):
    heads, size, rows = v.shape[2], v.shape[3], 16
    output, new_state = torch.empty_like(v), torch.empty_like(state)
    gated_delta_step[(v.shape[0], heads, size // rows)](
        q, k, v, state, A_log, a, dt_bias, b, float(scale), output, new_state,
        HEADS=heads, GROUP=heads // k.shape[2], SIZE=size, ROWS=rows, num_warps=4,
    )  # fmt: skip
    return output, new_state
