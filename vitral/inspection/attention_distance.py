"""Attention distance and entropy: of one map, and of a model averaged over images."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from vitral.errors import RequestError
from vitral.inspection.arrays import Array, as_given, check_attention, pair
from vitral.inspection.attention import attention_steps, layer_names
from vitral.models.model import Model


@dataclass(frozen=True, eq=False)
class Reach:
    """Attention distance and entropy of each layer and head, averaged over images."""

    layers: tuple[str, ...]
    """Names of the layers, from input to output; an axial layer has two, rows and columns."""
    distances: np.ndarray
    """(layers, heads) float64, pixels: `mean_attention_distance`, averaged over the images."""
    entropies: np.ndarray
    """(layers, heads) float64, nats: `attention_entropy`, averaged over the images."""
    num_images: int


class ReachMeter:
    """Accumulates sums over traced attention, batch by batch."""

    def __init__(self, model: Model, *, renormalize: bool = False) -> None:
        layer_names(model)
        self._steps = {step.name: step for step in attention_steps(model)}
        self.names = list(self._steps)
        self._model, self._renormalize = model, renormalize
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}
        self._num_images = 0

    @torch.no_grad()
    def add_images(self, images: Tensor) -> None:
        """Add the attention of all layers on images (N, C, H, W), one layer at a time."""
        for name, attention in self._model.trace_each(images, self.names):
            self.add(name, attention)

    def add(self, name: str, attention: Tensor) -> None:
        """Add the attention of one layer on a batch, by its trace name."""
        distance, entropy = self._measure(name, attention)
        sums = (distance.cpu().double().sum(dim=0), entropy.cpu().double().sum(dim=0))
        before = self._sums.get(name)
        self._sums[name] = sums if before is None else (before[0] + sums[0], before[1] + sums[1])
        if name == self.names[0]:
            self._num_images += len(attention)

    def result(self) -> Reach:
        """Return the means over all images.

        Raises:
            RequestError: there was no image.
        """
        if not self._num_images:
            raise RequestError("there is no image to look at attention on: give one or more")
        distances, entropies = (
            torch.stack([self._sums[name][part] for name in self.names]).numpy() / self._num_images
            for part in (0, 1)
        )
        return Reach(tuple(self.names), distances, entropies, self._num_images)

    def _measure(self, name: str, attention: Tensor) -> tuple[Tensor, Tensor]:
        """Return distance and entropy (N, heads)."""
        step = self._steps[name]
        if step.kind == "full":
            distance = mean_attention_distance(
                attention,
                grid=step.grid,
                patch_size=step.stride,
                num_prefix_tokens=step.num_prefix_tokens,
                renormalize=self._renormalize,
            )
            return distance, attention_entropy(attention)
        lines, along = attention.flatten(0, 1), int(step.kind == "row")
        distance = mean_attention_distance(
            lines,
            grid=(1, step.grid[along]),
            patch_size=step.stride[along],
            num_prefix_tokens=step.num_prefix_tokens,
            renormalize=self._renormalize,
        )
        of_images = attention.shape[:2]
        return (
            distance.unflatten(0, of_images).mean(dim=1),
            attention_entropy(lines).unflatten(0, of_images).mean(dim=1),
        )


def attention_reach(model: Model, batches: Iterable[Tensor], *, renormalize: bool = False) -> Reach:
    """Measure the attention of all layers and heads over many images, one layer at a time.

    Args:
        model: with attention.
        batches: of images (N, C, H, W) as the model's `preprocessing` returns them, on its device.
        renormalize: as for `mean_attention_distance`.

    Raises:
        RequestError: the model has no attention, or there is no image.

    Source: ViT paper, Figure 11: the mean over 128 images.
    """
    meter = ReachMeter(model, renormalize=renormalize)
    for images in batches:
        meter.add_images(images)
    return meter.result()


def mean_attention_distance(
    attention: Array,
    *,
    grid: tuple[int, int],
    patch_size: int | tuple[int, int],
    num_prefix_tokens: int = 1,
    renormalize: bool = False,
) -> Array:
    """Average, per image and head, the distance in pixels between a patch and what it attends to.

    The prefix tokens' rows and columns are left out. The paper does not say whether the rest of a
    row is renormalised to sum to 1: weight on the class token counts as distance 0 unless
    `renormalize` is set.

    Args:
        attention: (N, heads, L, L); rows sum to 1, prefix tokens come first.
        grid: patches down and across; need not be square.
        patch_size: pixels of the input image per patch side, or (height, width); for a hybrid,
            those of a position of its ResNet's map (`pixels_per_patch`).
        num_prefix_tokens: class token and registers.
        renormalize: whether a patch's weights on the patches are renormalised to sum to 1.

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
    # One pass over the weights, without a copy.
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


def attention_entropy(attention: Array) -> Array:
    """Average, per image and head, the entropy of what a token attends to.

    Args:
        attention: (N, heads, L, L); rows sum to 1.

    Returns:
        (N, heads), in nats: 0 if each token attends to one, log L if all attend uniformly.

    Raises:
        RequestError: another shape, or rows that do not sum to 1.

    Source: Zhai et al., Stabilizing Transformer Training by Preventing Attention Entropy Collapse
    (arXiv 2303.06296), section 3.
    """
    weights = check_attention(attention)
    return as_given(torch.special.entr(weights).sum(dim=-1).mean(dim=-1), attention)
