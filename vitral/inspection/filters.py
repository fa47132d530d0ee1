"""What the first layer of a network looks for: principal components of its filters."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vitral.errors import RequestError
from vitral.inspection.patches import turned
from vitral.models.model import Model


@dataclass(frozen=True, eq=False)
class PrincipalFilters:
    """Principal components of the filters of a layer."""

    components: np.ndarray
    """(components, height, width, C) float32, of length 1 each; the largest entry is positive."""
    singular_values: np.ndarray
    """Of all components, in falling order."""
    shares: np.ndarray
    """Share of the filters' variance that each component explains, of all components."""
    mean: np.ndarray
    """(height, width, C): the mean filter."""


def embedding_filters(model: Model, components: int = 28, *, centred: bool = True) -> np.ndarray:
    """Return the principal components of the filters that a model sees an image through.

    Args:
        model: a ViT's patch embedding; of a ResNet, an AxialResNet and a hybrid, whose patches
            are cut from a map, the convolution of the root.
        components: how many, 28 in Figure 7; less where there are less.
        centred: whether the mean filter is taken away before; the paper does not say.

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
    """Return the principal components of filters (D, C, height, width), each of them a sample.

    Raises:
        RequestError: components is not positive.
    """
    if components < 1:
        raise RequestError(f"components={components} must be 1 or more")
    samples = filters.permute(0, 2, 3, 1).flatten(1).cpu().double()
    shape = (filters.shape[2], filters.shape[3], filters.shape[1])
    mean = samples.mean(dim=0)
    found = torch.linalg.svd(samples - mean if centred else samples, full_matrices=False)
    strengths = found.S.square()
    return PrincipalFilters(
        turned(found.Vh[:components]).unflatten(1, shape).float().numpy(),
        found.S.numpy(),
        (strengths / strengths.sum().clamp_min(1e-300)).numpy(),
        mean.unflatten(0, shape).float().numpy(),
    )
