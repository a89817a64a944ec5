import torch
import triton
import triton.language as tl


@triton.jit
def silu_and_mul_kernel(in_ptr, out_ptr, HIDDEN: tl.constexpr, BLOCK: tl.constexpr):
    """One program handles one token: BLOCK is the power of two at or above HIDDEN, the rest is masked."""
    token = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    mask = cols < HIDDEN
    gate = tl.load(in_ptr + token * 2 * HIDDEN + cols, mask=mask, other=0.0).to(tl.float32)
    value = tl.load(in_ptr + token * 2 * HIDDEN + HIDDEN + cols, mask=mask, other=0.0).to(tl.float32)
    y = gate / (1.0 + tl.exp(-gate)) * value
    tl.store(out_ptr + token * HIDDEN + cols, y.to(out_ptr.dtype.element_ty), mask=mask)


def run(input):
    """input: float16 [num_tokens, 768], gate then value; returns silu(gate) * value: float16 [num_tokens, 384]."""
    num_tokens, width = input.shape
    hidden_size = width // 2
    output = torch.empty((num_tokens, hidden_size), dtype=input.dtype, device=input.device)
    silu_and_mul_kernel[(num_tokens,)](
        input.contiguous(), output, HIDDEN=hidden_size, BLOCK=triton.next_power_of_2(hidden_size), num_warps=2
    )
    return output
