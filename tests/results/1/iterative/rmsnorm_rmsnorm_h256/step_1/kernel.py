import torch
import triton
import triton.language as tl


@triton.jit
def _rmsnorm_h256_kernel(
    x_ptr,  # int64 words, 4 bfloat16 values each, 64 words a row
    w_ptr,  # int64 words, 64 of them
    o_ptr,  # int64 words, padded to whole blocks of rows
    LIMIT: tl.constexpr,  # number of valid words of x; 0: all blocks are full
    ROWS: tl.constexpr,  # rows of a program, a power of two
    MULTI: tl.constexpr,  # more than one program
):
    offs = tl.reshape(tl.arange(0, ROWS * 64), (ROWS, 1, 64))
    if MULTI:
        offs = offs + tl.program_id(0).to(tl.int64) * (ROWS * 64)

    # Bit positions of the four values in a word: 0, 16, 32, 48, as [4, 1].
    shifts = tl.expand_dims(tl.arange(0, 4) << 4, 1).to(tl.int64)

    if LIMIT:
        xp = tl.load(x_ptr + offs, mask=offs < LIMIT)
    else:
        xp = tl.load(x_ptr + offs)
    wp = tl.load(w_ptr + tl.arange(0, 64))

    # Unpack: bfloat16 bits become the upper half of float32 bits.
    x = ((xp >> shifts).to(tl.int32) << 16).to(tl.float32, bitcast=True)  # [ROWS, 4, 64]
    w = ((wp >> shifts).to(tl.int32) << 16).to(tl.float32, bitcast=True)  # [4, 64]

    ss = tl.reduce(x * x, 2, tl.standard._sum_combine, keep_dims=True)
    ss = tl.reduce(ss, 1, tl.standard._sum_combine, keep_dims=True)  # [ROWS, 1, 1]

    # F / sqrt(ss / 256 + 1e-6) with F = 1 + 1.5 * 2**-9, which centres the
    # truncation to bfloat16 below: 1 / (256 * F * F) and 1e-6 / (F * F).
    rs = tl.rsqrt(ss * 0.003883462008 + 9.94166274e-7)

    y = x * rs * w

    # Pack: upper halves of the float32 bits, four to a word (disjoint bits).
    bits = (y.to(tl.uint32, bitcast=True) >> 16).to(tl.int64) << shifts
    op = tl.reduce(bits, 1, tl.standard._sum_combine, keep_dims=True)  # [ROWS, 1, 64]
    tl.store(o_ptr + offs, op)


def run(hidden_states, weight):
    n = hidden_states.shape[0]
    if n == 0:
        return torch.empty_like(hidden_states)

    rows = 1 << (n - 1).bit_length()
    if rows > 1024:
        rows = 1024
    programs = (n + rows - 1) // rows
    total = programs * rows
    exact = total == n

    out = torch.empty((total, 64), dtype=torch.int64, device=hidden_states.device)
    _rmsnorm_h256_kernel[(programs,)](
        hidden_states.contiguous().view(torch.int64),
        weight.contiguous().view(torch.int64),
        out,
        0 if exact else n * 64,
        rows,
        programs > 1,
    )
    output = out.view(torch.bfloat16)
    return output if exact else output[:n]
