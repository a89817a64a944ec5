import torch
import triton
import triton.language as tl


@triton.jit
def paged_decode_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    indptr_ptr,
    indices_ptr,
    last_page_len_ptr,
    out_ptr,
    lse_ptr,
    sm_scale,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
):
    """One program serves one sequence and one kv head with its GROUP query heads, a page at a time (online softmax).

    Logits are kept in units of log2, so that the log-sum-exp comes out to base 2.
    """
    seq = tl.program_id(0)
    kv_head = tl.program_id(1)
    heads = kv_head * GROUP + tl.arange(0, GROUP)
    dims = tl.arange(0, HEAD_DIM)
    slots = tl.arange(0, PAGE_SIZE)

    q_offsets = (seq * NUM_KV_HEADS * GROUP + heads[:, None]) * HEAD_DIM + dims[None, :]
    q = tl.load(q_ptr + q_offsets).to(tl.float32) * (sm_scale * 1.4426950408889634)

    begin = tl.load(indptr_ptr + seq)
    end = tl.load(indptr_ptr + seq + 1)
    last_page_len = tl.load(last_page_len_ptr + seq)

    top = tl.full((GROUP,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((GROUP,), dtype=tl.float32)
    acc = tl.zeros((GROUP, HEAD_DIM), dtype=tl.float32)
    for i in range(begin, end):
        page = tl.load(indices_ptr + i).to(tl.int64)
        filled = tl.where(i == end - 1, last_page_len, PAGE_SIZE)
        valid = slots < filled
        offsets = ((page * PAGE_SIZE + slots[:, None]) * NUM_KV_HEADS + kv_head) * HEAD_DIM + dims[None, :]
        k = tl.load(k_ptr + offsets, mask=valid[:, None], other=0.0).to(tl.float32)
        v = tl.load(v_ptr + offsets, mask=valid[:, None], other=0.0).to(tl.float32)

        logits = tl.sum(q[:, None, :] * k[None, :, :], axis=2)  # [GROUP, PAGE_SIZE]
        logits = tl.where(valid[None, :], logits, float("-inf"))
        new_top = tl.maximum(top, tl.max(logits, axis=1))
        rescale = tl.exp2(top - new_top)
        weights = tl.exp2(logits - new_top[:, None])
        total = total * rescale + tl.sum(weights, axis=1)
        acc = acc * rescale[:, None] + tl.sum(weights[:, :, None] * v[None, :, :], axis=1)
        top = new_top

    total = tl.where(total > 0.0, total, 1.0)  # a sequence without pages: zeros and -inf
    out = acc / total[:, None]
    tl.store(out_ptr + q_offsets, out.to(out_ptr.dtype.element_ty))
    tl.store(lse_ptr + seq * NUM_KV_HEADS * GROUP + heads, top + tl.log2(total))


def run(q, k_cache, v_cache, kv_indptr, kv_indices, kv_last_page_len, sm_scale):
    """q: bfloat16 [batch_size, 8, 64]; k_cache, v_cache: bfloat16 [num_pages, 16, 2, 64]; kv_indptr: int32
    [batch_size + 1]; kv_indices: int32 [num_kv_indices]; kv_last_page_len: int32 [batch_size]; sm_scale: a float.

    Returns output: bfloat16 [batch_size, 8, 64], and lse: float32 [batch_size, 8], to base 2.
    """
    batch_size, num_qo_heads, head_dim = q.shape
    _, page_size, num_kv_heads, _ = k_cache.shape
    output = torch.empty((batch_size, num_qo_heads, head_dim), dtype=q.dtype, device=q.device)
    lse = torch.empty((batch_size, num_qo_heads), dtype=torch.float32, device=q.device)
    paged_decode_kernel[(batch_size, num_kv_heads)](
        q.contiguous(),
        k_cache.contiguous(),
        v_cache.contiguous(),
        kv_indptr,
        kv_indices,
        kv_last_page_len,
        output,
        lse,
        float(sm_scale),
        NUM_KV_HEADS=num_kv_heads,
        GROUP=num_qo_heads // num_kv_heads,
        HEAD_DIM=head_dim,
        PAGE_SIZE=page_size,
    )
    return output, lse
