"""How spread attention is."""

import torch

from vitral.inspection.arrays import Array, as_given, check_attention


def attention_entropy(attention: Array) -> Array:
    """Average, per image and head, the entropy of what a token attends to.

    Args:
        attention: (N, heads, L, L); rows sum to 1.

    Returns:
        (N, heads), in nats: 0 where each token looks at one, log L where all look everywhere.

    Raises:
        RequestError: another shape, or rows that do not sum to 1.

    Source: Zhai et al., Stabilizing Transformer Training by Preventing Attention Entropy Collapse
    (arXiv 2303.06296), section 3.
    """
    weights = check_attention(attention)
    return as_given(torch.special.entr(weights).sum(dim=-1).mean(dim=-1), attention)
