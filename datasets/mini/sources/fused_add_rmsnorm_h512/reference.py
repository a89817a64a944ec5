import torch


@torch.no_grad()
def run(hidden_states, residual, weight):
    """RMSNorm of the sum of hidden_states and residual, computed in float32; the sum itself is not returned.

    hidden_states, residual: bfloat16 [batch_size, 512]; weight: bfloat16 [512].
    Returns output: bfloat16 [batch_size, 512].
    """
    assert hidden_states.shape == residual.shape
    assert hidden_states.shape[1] == 512
    eps = 1e-6

    total = hidden_states.float() + residual.float()
    mean_square = (total * total).mean(dim=1, keepdim=True)
    normed = total / torch.sqrt(mean_square + eps)
    return (normed * weight.float()).to(torch.bfloat16)
