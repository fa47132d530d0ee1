"""Embeddings: principal components of filters, similarity of positions and of features."""

from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitral.errors import RequestError
from vitral.inspection.arrays import Array, as_floats, as_given
from vitral.models.model import Model
from vitral.models.position import RelativePosition
from vitral.models.vit import ViT


@dataclass(frozen=True, eq=False)
class PrincipalFilters:
    """Principal components of the filters of a layer."""

    components: np.ndarray
    """(components, height, width, C) float32, of length 1 each; the largest entry is positive."""
    singular_values: np.ndarray
    """Of all components, in descending order."""
    shares: np.ndarray
    """Share of the filters' variance that each component explains, for all components."""
    mean: np.ndarray
    """(height, width, C): the mean filter."""


def embedding_filters(model: Model, components: int = 28, *, centred: bool = True) -> np.ndarray:
    """Return the principal components of the filters of a model's first layer.

    Args:
        model: for a ViT the filters are its patch embedding; for a ResNet, an AxialResNet and a
            hybrid, whose patches are cut from a map, the convolution of the root.
        components: maximum number, 28 in Figure 7.
        centred: whether the mean filter is subtracted first; the paper does not say.

    Returns:
        (components, height, width, C) float32, C the channels of the image; each of length 1.

    Raises:
        RequestError: components is not positive.

    Source: ViT paper, Figure 7 (left).
    """
    return principal_filters(
        model.first_filters(), components=components, centred=centred
    ).components


def principal_filters(
    filters: Tensor, *, components: int = 28, centred: bool = True
) -> PrincipalFilters:
    """Return the principal components of filters (D, C, height, width), each one a sample.

    Raises:
        RequestError: components is not positive.
    """
    if components < 1:
        raise RequestError(f"components={components} must be 1 or more")
    samples = filters.permute(0, 2, 3, 1).flatten(1).cpu().double()
    shape = (filters.shape[2], filters.shape[3], filters.shape[1])
    mean = samples.mean(dim=0)
    svd = torch.linalg.svd(samples - mean if centred else samples, full_matrices=False)
    strengths = svd.S.square()
    return PrincipalFilters(
        fix_signs(svd.Vh[:components]).unflatten(1, shape).float().numpy(),
        svd.S.numpy(),
        (strengths / strengths.sum().clamp_min(1e-300)).numpy(),
        mean.unflatten(0, shape).float().numpy(),
    )


@torch.no_grad()
def position_similarity(model: Model, *, block: int = 0) -> np.ndarray:
    """Return the cosine similarity of the position embeddings of any two patches.

    Relative positions have no embedding of a position. For these it is the similarity of the key
    for the offset between two patches with the key for offset 0, averaged over the heads' tables:
    also 1 at the patch itself, and the same in all tiles except for a shift.

    Args:
        model: a ViT with position embeddings: learned, sinusoidal or relative, possibly
            interpolated to another grid.
        block: whose table, if each block has its own.

    Returns:
        (rows, columns, rows, columns) float32 in -1..1: [r, c] is the tile of patch r, c. The
        class token's row is left out.

    Raises:
        RequestError: the model has no position embeddings, or no such block.

    Source: ViT paper, Figures 7 (centre) and 10, section D.4.
    """
    if not has_positions(model):
        raise RequestError(f"{model.config.name} has no position embeddings")
    count = len(model.positions)
    if not 0 <= block < count:
        raise RequestError(f"there is no table {block}: {model.config.name} has {count}, from 0 on")
    grid, position = model.config.grid, model.positions[block]
    if isinstance(position, RelativePosition):
        alike = _offset_similarity(position.offsets, model.config.num_patches)
    else:
        directions = F.normalize(position_vectors(model, block).cpu().double(), dim=1)
        alike = directions @ directions.T
    tiles: np.ndarray = alike.float().unflatten(1, grid).unflatten(0, grid).cpu().numpy()
    return tiles


def has_positions(model: Model) -> TypeGuard[ViT]:
    """Return whether a model has position embeddings."""
    return isinstance(model, ViT) and model.config.position != "none"


def position_vectors(model: ViT, block: int = 0) -> Tensor:
    """Return the position embedding that is added to each patch (P, D)."""
    config = model.config
    tokens = model.norm.weight.new_zeros(
        1, config.num_prefix_tokens + config.num_patches, config.embed_dim
    )
    added: Tensor = model.positions[block](tokens)
    return added[0, config.num_prefix_tokens :]


def _offset_similarity(offsets: Tensor, num_patches: int) -> Tensor:
    """Return the similarity of the key of each offset q - k to that of offset 0: (P, P)."""
    keys = F.normalize(offsets.cpu().double(), dim=-1)
    alike = (keys @ keys[:, num_patches - 1, :, None])[..., 0].mean(dim=0)
    positions = torch.arange(num_patches)
    return alike[positions[:, None] - positions[None, :] + num_patches - 1]


def feature_colors(tokens: Array, *, grid: tuple[int, int]) -> Array:
    """Colour each patch by the first three principal components of all patches' features.

    Args:
        tokens: (N, P, D) of one or several images, without prefix tokens; the components are those
            of all images, so that equal colours mean similar features across images.
        grid: patches down and across.

    Returns:
        (N, rows, columns, 3) in 0..1: each component scaled from its minimum to its maximum; a
        constant one is 0.5.

    Raises:
        RequestError: tokens that do not fit the grid.

    Source: Oquab et al., DINOv2 (arXiv 2304.07193), Figure 1.
    """
    features = _patch_features(tokens, grid)
    flat = features.flatten(0, 1)
    flat = flat - flat.mean(dim=0)
    rank = min(3, *flat.shape)
    axes = fix_signs(
        torch.linalg.eigh((flat.T @ flat).double().cpu()).eigenvectors.T.flip(0)[:rank]
    )
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
        (N, rows, columns, rows, columns) in -1..1: [n, r, c] is the similarity map of patch r, c.

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


def fix_signs(axes: Tensor) -> Tensor:
    """Fix the arbitrary sign of each row: its entry of largest magnitude becomes positive."""
    largest = axes.abs().argmax(dim=1, keepdim=True)
    return axes * axes.gather(1, largest).sign()
