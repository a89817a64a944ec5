import torch
import triton
import triton.language as tl


@triton.jit
def _rmsnorm_h256_small_kernel(
    x_ptr,  # int16 words, one bfloat16 value each, 256 words a row
    w_ptr,  # int16 words, 256 of them
    o_ptr,  # int16 words, padded to ROWS rows
    sixteen,  # 16 as an int32 scalar: shifting an int16 block by it gives int32
    LIMIT: tl.constexpr,  # number of valid words of x; 0: the block is full
    ROWS: tl.constexpr,  # rows of the only program, a power of two
):
    cols = tl.arange(0, 256)
    if ROWS == 1:
        offs = cols
    else:
        offs = tl.reshape(tl.arange(0, ROWS * 256), (ROWS, 256))

    if LIMIT:
        xp = tl.load(x_ptr + offs, mask=offs < LIMIT)
    else:
        xp = tl.load(x_ptr + offs)

    # bfloat16 bits become the upper half of float32 bits.
    x = (xp << sixteen).to(tl.float32, bitcast=True)
    w = (tl.load(w_ptr + cols) << sixteen).to(tl.float32, bitcast=True)

    ss = tl.reduce(x * x, 0 if ROWS == 1 else 1, tl.standard._sum_combine, keep_dims=True)

    # F / sqrt(ss / 256 + 1e-6) with F = 1 + 1.5 * 2**-9, which centres the
    # truncation to bfloat16 below: 1 / (256 * F * F) and 1e-6 / (F * F).
    y = x * tl.rsqrt(ss * 0.003883462008 + 9.94166274e-7) * w

    # The store narrows the upper halves to int16.
    tl.store(o_ptr + offs, y.to(tl.int32, bitcast=True) >> sixteen)


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

    # As in the small kernel.
    y = x * tl.rsqrt(ss * 0.003883462008 + 9.94166274e-7) * w

    # Pack: upper halves of the float32 bits, four to a word (disjoint bits).
    # uint32 << int64 promotes to int64.
    bits = (y.to(tl.uint32, bitcast=True) >> 16) << shifts
    tl.store(o_ptr + offs, tl.reduce(bits, 1, tl.standard._sum_combine, keep_dims=True))


def run(hidden_states, weight):
    n = hidden_states.shape[0]
    if n == 0:
        return torch.empty_like(hidden_states)

    rows = 1 << (n - 1).bit_length()

    if rows <= 64:
        out = torch.empty((rows, 256), dtype=torch.int16, device=hidden_states.device)
        _rmsnorm_h256_small_kernel[(1,)](
            hidden_states.contiguous().view(torch.int16),
            weight.contiguous().view(torch.int16),
            out,
            16,
            0 if rows == n else n * 256,
            rows,
        )
        output = out.view(torch.bfloat16)
        return output if rows == n else output[:n]

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
