"""What the patches' features say of each other: principal colours and similarity."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vitral.errors import RequestError
from vitral.inspection.arrays import Array, as_floats, as_given


def feature_colors(tokens: Array, *, grid: tuple[int, int]) -> Array:
    """Colour each patch by the first three principal components of all patches' features.

    Args:
        tokens: (N, P, D) of one or several images, without prefix tokens; the components are those
            of all of them, so that equal colours mean alike features in all images.
        grid: patches down and across.

    Returns:
        (N, rows, columns, 3) in 0..1: each component spread from its least to its largest value;
        one that does not vary is 0.5.

    Raises:
        RequestError: tokens that do not fit the grid.

    Source: Oquab et al., DINOv2 (arXiv 2304.07193), Figure 1.
    """
    features = _patch_features(tokens, grid)
    flat = features.flatten(0, 1)
    flat = flat - flat.mean(dim=0)
    rank = min(3, *flat.shape)
    axes = turned(torch.linalg.eigh((flat.T @ flat).double().cpu()).eigenvectors.T.flip(0)[:rank])
    axes = axes.to(flat)
    parts = F.pad(flat @ axes.T, (0, 3 - rank))
    low, high = parts.amin(dim=0), parts.amax(dim=0)
    span = high - low
    noise = 1e-5 * span.max()
    spread = torch.where(span > noise, (parts - low) / span.clamp_min(1e-30), 0.5)
    return as_given(spread.unflatten(0, features.shape[:2]).unflatten(1, grid), tokens)


def patch_similarity(tokens: Array, *, grid: tuple[int, int]) -> Array:
    """Return the cosine similarity of the features of any two patches of an image.

    Args:
        tokens: (N, P, D), without prefix tokens.
        grid: patches down and across.

    Returns:
        (N, rows, columns, rows, columns) in -1..1: [n, r, c] is the map of what is like patch r, c.

    Raises:
        RequestError: tokens that do not fit the grid.

    Source: Amir et al., Deep ViT Features as Dense Visual Descriptors (arXiv 2112.05814).
    """
    directions = F.normalize(_patch_features(tokens, grid), dim=-1)
    alike = directions @ directions.transpose(1, 2)
    return as_given(alike.unflatten(2, grid).unflatten(1, grid), tokens)


def _patch_features(tokens: Array, grid: tuple[int, int]) -> Tensor:
    if tokens.ndim != 3 or tokens.shape[1] != grid[0] * grid[1]:
        raise RequestError(
            f"tokens of shape {tuple(tokens.shape)} do not fit {grid[0]} x {grid[1]} patches: give "
            f"(N, {grid[0] * grid[1]}, D), without the prefix tokens"
        )
    return as_floats(tokens)


def turned(axes: Tensor) -> Tensor:
    """Turn each row so that its entry of largest magnitude is positive: a sign is arbitrary."""
    largest = axes.abs().argmax(dim=1, keepdim=True)
    return axes * axes.gather(1, largest).sign()
