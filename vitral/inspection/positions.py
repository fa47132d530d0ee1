"""What position embeddings know of the grid: how alike those of any two places are."""

from typing import TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitral.errors import RequestError
from vitral.models.model import Model
from vitral.models.position import RelativePosition
from vitral.models.vit import ViT


@torch.no_grad()
def position_similarity(model: Model, *, block: int = 0) -> np.ndarray:
    """Return the cosine similarity of the position embeddings of any two patches.

    Of positions by offset there is no embedding of a place. There it is the similarity of the key
    for the offset between two patches with the key for no offset, averaged over tables of heads:
    1 at the patch itself too, and the same in all tiles but for its place.

    Args:
        model: a ViT with position embeddings: learned, waves, also interpolated to another grid.
        block: whose table, where each block has its own.

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
        places = F.normalize(place_vectors(model, block).cpu().double(), dim=1)
        alike = places @ places.T
    tiles: np.ndarray = alike.float().unflatten(1, grid).unflatten(0, grid).cpu().numpy()
    return tiles


def has_positions(model: Model) -> TypeGuard[ViT]:
    """Say whether a model has position embeddings."""
    return isinstance(model, ViT) and model.config.position != "none"


def place_vectors(model: ViT, block: int = 0) -> Tensor:
    """Return what is added to each patch (P, D) for its place."""
    config = model.config
    tokens = model.norm.weight.new_zeros(
        1, config.num_prefix_tokens + config.num_patches, config.embed_dim
    )
    added: Tensor = model.positions[block](tokens)
    return added[0, config.num_prefix_tokens :]


def _offset_similarity(offsets: Tensor, num_patches: int) -> Tensor:
    """Return how alike the key of each offset q - k is to that of offset 0: (P, P)."""
    keys = F.normalize(offsets.cpu().double(), dim=-1)
    alike = (keys @ keys[:, num_patches - 1, :, None])[..., 0].mean(dim=0)
    place = torch.arange(num_patches)
    return alike[place[:, None] - place[None, :] + num_patches - 1]
