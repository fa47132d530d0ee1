"""Measurements of one image from a single forward pass, as many as a page can hold."""

import logging
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vitral.errors import RequestError
from vitral.inspection.attention import (
    attention_steps,
    full_step,
    layer_names,
    num_heads,
    probe_names,
    step_names,
)
from vitral.inspection.attention_distance import ReachMeter
from vitral.inspection.rollout import attention_rollouts, pooled_rollout
from vitral.models.layout import Layout
from vitral.models.model import Model


@dataclass(frozen=True)
class KeptSteps:
    """The steps (`step_names`) whose attention is kept."""

    means: Collection[str] = ()
    """Averaged over heads."""
    heads: Collection[str] = ()
    """Of each head."""


@dataclass(frozen=True, eq=False)
class AttentionInspection:
    """The attention of one image."""

    means: dict[str, np.ndarray]
    """(L, L) float16 by step: averaged over heads."""
    heads: dict[str, np.ndarray]
    """(heads, L, L) float16 by step."""
    rollouts: np.ndarray
    """(steps, rows, columns): rollout up to each step, from each patch to the head's input."""
    rollout: np.ndarray
    """(L, L) float16: the rollout through all steps, from every token."""
    of_pool: np.ndarray
    """(heads, rows, columns): attention of the head's input to the patches, of the last block or of
    the pooling probe."""


@dataclass(frozen=True, eq=False)
class ImageInspection:
    """Outputs of a model for one image."""

    logits: np.ndarray
    """(K,)."""
    features: np.ndarray
    """(P, D): patch tokens at the end of the encoder; for a convolutional model, its last map."""
    grid: tuple[int, int]
    """Of the features."""
    attention: AttentionInspection | None
    """None if the model has no attention over all patches."""


@torch.no_grad()
def inspect_image(
    model: Model, image: Tensor, *, keep: KeptSteps | None = None, meter: ReachMeter | None = None
) -> ImageInspection:
    """Measure one image.

    Args:
        model: in evaluation mode.
        image: (1, C, H, W) as the model's `preprocessing` returns it, on its device.
        keep: the steps whose attention is kept; None: none.
        meter: if given, the attention of all layers is added to it.
    """
    if model.layout().has_tokens:
        return _look_at_tokens(model, image, keep or KeptSteps(), meter)
    return _look_at_maps(model, image, meter)


def _look_at_tokens(
    model: Model, image: Tensor, keep: KeptSteps, meter: ReachMeter | None
) -> ImageInspection:
    layout = model.layout()
    grid, prefix, pool = layout.grid, layout.num_prefix_tokens, layout.pool
    steps = {step.name: step for step in attention_steps(model)}
    probes = probe_names(model)
    means: dict[str, np.ndarray] = {}
    heads: dict[str, np.ndarray] = {}
    traced: dict[str, Tensor] = {}

    def attention() -> Iterator[Tensor]:
        names = [*steps, "tokens", "logits"]
        for name, value in model.trace_each(image, [*names, *probes]):
            if name not in steps:
                traced[name] = value
                continue
            if meter:
                meter.add(name, value)
            traced["last"] = full_step(steps[name], value)
            if name in keep.means:
                means[name] = _half(traced["last"].mean(dim=1)[0])
            if name in keep.heads:
                heads[name] = _half(traced["last"][0])
            yield traced["last"]

    # The pooling by a probe is known only after all blocks, other pooling at once.
    pending: list[Tensor] = []
    maps: list[Tensor] = []
    rollout = None
    for rollout in attention_rollouts(attention(), num_prefix_tokens=prefix):
        if probes:
            pending.append(rollout)
        else:
            maps.append(pooled_rollout(rollout, grid=grid, pool=pool, num_prefix_tokens=prefix))
    probe = traced[probes[0]] if probes else None
    for partial in pending:
        maps.append(
            pooled_rollout(
                partial, grid=grid, pool=pool, num_prefix_tokens=prefix, pool_attention=probe
            )
        )
    assert rollout is not None
    return ImageInspection(
        logits=_floats(traced["logits"][0]),
        features=_floats(traced["tokens"][0, prefix:]),
        grid=grid,
        attention=AttentionInspection(
            means=means,
            heads=heads,
            rollouts=_floats(torch.cat(maps)),
            rollout=_half(rollout[0]),
            of_pool=_floats(_of_pool(layout, traced["last"] if probe is None else probe)),
        ),
    )


def _of_pool(layout: Layout, attention: Tensor) -> Tensor:
    """Return each head's attention (heads, rows, columns) from the head's input to the patches.

    Args:
        layout: its pool is the head's input: the class token, the mean over patches, or the probe.
        attention: (1, heads, L, L) of the last block, or (1, heads, 1, L) of the probe.
    """
    prefix = layout.num_prefix_tokens
    is_mean = layout.pool == "gap"
    rows = attention[0, :, prefix:].mean(dim=1) if is_mean else attention[0, :, 0]
    return rows[:, prefix:].unflatten(1, layout.grid)


def _look_at_maps(model: Model, image: Tensor, meter: ReachMeter | None) -> ImageInspection:
    """Measure an image with a network that ends in a map (ResNet, AxialResNet)."""
    last = [name for name in model.trace_names if name.rpartition("/")[2].startswith("unit")][-1]
    steps = step_names(model) if meter else []
    traced = {}
    for name, value in model.trace_each(image, [*steps, last, "logits"]):
        if meter and name in steps:
            meter.add(name, value)
        else:
            traced[name] = value
    maps = traced[last][0]
    return ImageInspection(
        logits=_floats(traced["logits"][0]),
        features=_floats(maps.flatten(1).T),
        grid=(maps.shape[1], maps.shape[2]),
        attention=None,
    )


def _floats(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.float().cpu().numpy()
    return array


def _half(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.half().cpu().numpy()
    return array


ATTENTION_BUDGET = 32_000_000
"""Number of weights kept over all images: of means over heads, and again of single heads."""
FEWEST_MAPS = 6
"""Minimum number of attention maps (L, L) for each image of the gallery."""
_log = logging.getLogger("vitral")


def gallery_size(model: Model, wanted: int) -> int:
    """Return how many images are measured one by one; log a warning if fewer than wanted.

    For each of them, a page holds its rollout, the similarity of its patches and the attention of
    some steps.
    """
    if not model.layout().has_tokens:
        return wanted
    length = _num_tokens(model.layout())
    count = max(1, min(wanted, ATTENTION_BUDGET // (FEWEST_MAPS * length**2)))
    if count < wanted:
        _log.warning(
            "the first %d of %d images are looked at one by one: %s tokens of each are as many as "
            "a page holds",
            count,
            wanted,
            f"{length:,}",
        )
    return count


def kept_steps(model: Model, *, num_images: int, layers: Sequence[int] | None) -> KeptSteps:
    """Choose the steps whose attention is kept, so that a page of them opens quickly.

    Means over heads are kept for all steps, or for as many, evenly spaced, as the budget allows.
    Single heads are kept for the given layers, or again for as many steps as fit.

    Raises:
        RequestError: a layer that does not exist.
    """
    if not model.layout().has_tokens:
        if layers:
            raise RequestError(
                f"{model.config.name} has no tokens whose attention could be stepped through: "
                "leave --layers out"
            )
        return KeptSteps()
    steps = step_names(model)
    one = num_images * _num_tokens(model.layout()) ** 2
    means = _evenly(steps, max(1, ATTENTION_BUDGET // one))
    if layers is None:
        heads = _evenly(means, ATTENTION_BUDGET // (one * num_heads(model)))
        return KeptSteps(means, heads)
    depth = len(layer_names(model))
    each = len(steps) // depth
    for layer in layers:
        if not -depth <= layer < depth:
            raise RequestError(
                f"there is no layer {layer}: {model.config.name} has {depth}, 0 to {depth - 1}"
            )
    wanted = {layer % depth for layer in layers}
    heads = [step for index, step in enumerate(steps) if index // each in wanted]
    return KeptSteps([step for step in steps if step in means or step in heads], heads)


def _num_tokens(layout: Layout) -> int:
    return layout.num_prefix_tokens + math.prod(layout.grid)


def _evenly(steps: Sequence[str], count: int) -> list[str]:
    """Return at most `count` of the steps, evenly spaced, including the last one."""
    if count < 1:
        return []
    indices = np.linspace(len(steps) - 1, 0, min(len(steps), count)).round().astype(int)
    return [steps[index] for index in sorted(set(indices.tolist()))]
