"""How far attention reaches: the mean distance between a patch and what it attends to."""

from functools import cache

import torch
from torch import Tensor

from vitral.inspection.arrays import Array, as_given, check_attention, pair


def mean_attention_distance(
    attention: Array,
    *,
    grid: tuple[int, int],
    patch_size: int | tuple[int, int],
    num_prefix_tokens: int = 1,
    renormalize: bool = False,
) -> Array:
    """Average, per image and head, the distance in pixels between a patch and what it attends to.

    The prefix tokens' rows and columns are left out. Whether what is left of a row is made to sum
    to 1 again, the paper does not say: what goes to the class token counts as distance 0 unless
    `renormalize` is set.

    Args:
        attention: (N, heads, L, L); rows sum to 1, prefix tokens come first.
        grid: patches down and across; need not be square.
        patch_size: pixels of the input image per patch side, or (height, width); of a hybrid, those
            of a place of its ResNet's map (`pixels_per_patch`).
        num_prefix_tokens: class token and registers.
        renormalize: whether a patch's weights on the patches are made to sum to 1.

    Returns:
        (N, heads), pixels.

    Raises:
        RequestError: the token count does not match the grid, or rows do not sum to 1.

    Source: ViT paper (arXiv 2010.11929v2), Figures 7 (right) and 11, section D.7.
    """
    num_tokens = num_prefix_tokens + grid[0] * grid[1]
    weights = check_attention(attention, num_tokens=num_tokens)
    weights = weights[:, :, num_prefix_tokens:, num_prefix_tokens:]
    distances = patch_distances(tuple(grid), patch_size=pair(patch_size)).to(weights)
    # In one pass over the weights, without a copy of them.
    reached = torch.einsum("nhij,ij->nhi", weights, distances)
    if renormalize:
        reached = reached / weights.sum(dim=-1).clamp_min(torch.finfo(weights.dtype).tiny)
    return as_given(reached.mean(dim=-1), attention)


@cache
def patch_distances(grid: tuple[int, int], *, patch_size: tuple[int, int]) -> Tensor:
    """Return the distance (P, P) in pixels, float64, between the centres of any two patches."""
    sides = [
        torch.arange(count, dtype=torch.float64) * size
        for count, size in zip(grid, patch_size, strict=True)
    ]
    centres = torch.cartesian_prod(*sides)
    return (centres[:, None] - centres[None]).square().sum(dim=-1).sqrt()
