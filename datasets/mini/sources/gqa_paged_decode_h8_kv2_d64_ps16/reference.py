import math

import torch


@torch.no_grad()
def run(q, k_cache, v_cache, kv_indptr, kv_indices, kv_last_page_len, sm_scale):
    """One query token a sequence attends to the sequence's pages, computed in float32, a loop over the batch.

    q: bfloat16 [batch_size, 8, 64]; k_cache, v_cache: bfloat16 [num_pages, 16, 2, 64];
    kv_indptr: int32 [batch_size + 1]; kv_indices: int32 [num_kv_indices]; kv_last_page_len: int32 [batch_size];
    sm_scale: a float. Query head h reads kv head h // 4.
    Returns output: bfloat16 [batch_size, 8, 64], and lse: float32 [batch_size, 8], the log-sum-exp to base 2 of
    the scaled logits. A sequence without pages gives zeros and -inf.
    """
    batch_size, num_qo_heads, head_dim = q.shape
    _, page_size, num_kv_heads, _ = k_cache.shape
    assert (num_qo_heads, num_kv_heads, head_dim, page_size) == (8, 2, 64, 16)
    assert kv_indptr.shape[0] == batch_size + 1
    assert kv_indices.shape[0] == int(kv_indptr[-1])
    assert kv_last_page_len.shape[0] == batch_size

    group = num_qo_heads // num_kv_heads
    output = torch.zeros((batch_size, num_qo_heads, head_dim), dtype=torch.bfloat16, device=q.device)
    lse = torch.full((batch_size, num_qo_heads), -math.inf, dtype=torch.float32, device=q.device)

    for b in range(batch_size):
        begin, end = int(kv_indptr[b]), int(kv_indptr[b + 1])
        if begin == end:
            continue
        length = (end - begin - 1) * page_size + int(kv_last_page_len[b])
        pages = kv_indices[begin:end].long()

        # [pages, 16, 2, 64] -> [length, 2, 64]: the slots behind the last token are cut off
        keys = k_cache[pages].float().flatten(0, 1)[:length]
        values = v_cache[pages].float().flatten(0, 1)[:length]
        queries = q[b].float().view(num_kv_heads, group, head_dim)

        logits = torch.einsum("kgd,tkd->kgt", queries, keys) * sm_scale
        attention = torch.softmax(logits, dim=-1)
        output[b] = torch.einsum("kgt,tkd->kgd", attention, values).reshape(num_qo_heads, head_dim)
        lse[b] = torch.logsumexp(logits, dim=-1).reshape(num_qo_heads) / math.log(2.0)

    return output, lse
