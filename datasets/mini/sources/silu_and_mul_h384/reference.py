import torch


@torch.no_grad()
def run(input):
    """SwiGLU's activation: silu of the left half times the right half, computed in float32.

    input: float16 [num_tokens, 768], the gate in columns 0 to 383 and the value in 384 to 767.
    Returns output: float16 [num_tokens, 384].
    """
    assert input.shape[1] == 2 * 384

    gate = input[:, :384].float()
    value = input[:, 384:].float()
    return (gate * torch.sigmoid(gate) * value).to(torch.float16)
