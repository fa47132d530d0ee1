"""One look at one image: everything that a single forward pass gives."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vitral.inspection.attention import attention_steps, full_step, probe_names, step_names
from vitral.inspection.reach import ReachMeter
from vitral.inspection.rollout import attention_rollouts, pooled_rollout
from vitral.models.layout import Layout
from vitral.models.model import Model


@dataclass(frozen=True)
class Kept:
    """The steps (`step_names`) whose attention is kept."""

    means: Collection[str] = ()
    """Averaged over heads."""
    heads: Collection[str] = ()
    """Of each head."""


@dataclass(frozen=True, eq=False)
class AttentionLook:
    """Where the attention of one image goes."""

    means: dict[str, np.ndarray]
    """(L, L) float16 by step: averaged over heads."""
    heads: dict[str, np.ndarray]
    """(heads, L, L) float16 by step."""
    rollouts: np.ndarray
    """(steps, rows, columns): how much of each patch reaches what the head reads, up to each."""
    rollout: np.ndarray
    """(L, L) float16: the rollout through all steps, from every token."""
    of_pool: np.ndarray
    """(heads, rows, columns): where each head looks from what the model's head reads: those of the
    last block, or of the pool's probe."""


@dataclass(frozen=True, eq=False)
class Look:
    """What a model makes of one image."""

    logits: np.ndarray
    """(K,)."""
    features: np.ndarray
    """(P, D): the patches' tokens at the end of the encoder; of a convolutional model, its last
    map."""
    grid: tuple[int, int]
    """Of the features."""
    attention: AttentionLook | None
    """None where there is none over all patches."""


@torch.no_grad()
def look_at(
    model: Model, image: Tensor, *, keep: Kept | None = None, meter: ReachMeter | None = None
) -> Look:
    """Look at one image.

    Args:
        model: in evaluation mode.
        image: (1, C, H, W) as the model's `preprocessing` makes it, on its device.
        keep: the steps whose attention is kept; None: none.
        meter: takes the attention of all layers too.
    """
    if model.layout().has_tokens:
        return _look_at_tokens(model, image, keep or Kept(), meter)
    return _look_at_maps(model, image, meter)


def _look_at_tokens(model: Model, image: Tensor, keep: Kept, meter: ReachMeter | None) -> Look:
    layout = model.layout()
    grid, prefix, pool = layout.grid, layout.num_prefix_tokens, layout.pool
    steps = {step.name: step for step in attention_steps(model)}
    probes = probe_names(model)
    means: dict[str, np.ndarray] = {}
    heads: dict[str, np.ndarray] = {}
    held: dict[str, Tensor] = {}

    def attention() -> Iterator[Tensor]:
        asked = [*steps, "tokens", "logits"]
        for name, value in model.trace_each(image, [*asked, *probes]):
            if name not in steps:
                held[name] = value
                continue
            if meter:
                meter.add(name, value)
            held["last"] = full_step(steps[name], value)
            if name in keep.means:
                means[name] = _half(held["last"].mean(dim=1)[0])
            if name in keep.heads:
                heads[name] = _half(held["last"][0])
            yield held["last"]

    # What a probe reads is known after all blocks, what else is read at once.
    waiting: list[Tensor] = []
    maps: list[Tensor] = []
    rollout = None
    for rollout in attention_rollouts(attention(), num_prefix_tokens=prefix):
        if probes:
            waiting.append(rollout)
        else:
            maps.append(pooled_rollout(rollout, grid=grid, pool=pool, num_prefix_tokens=prefix))
    probe = held[probes[0]] if probes else None
    for own in waiting:
        maps.append(
            pooled_rollout(
                own, grid=grid, pool=pool, num_prefix_tokens=prefix, pool_attention=probe
            )
        )
    assert rollout is not None
    return Look(
        logits=_floats(held["logits"][0]),
        features=_floats(held["tokens"][0, prefix:]),
        grid=grid,
        attention=AttentionLook(
            means=means,
            heads=heads,
            rollouts=_floats(torch.cat(maps)),
            rollout=_half(rollout[0]),
            of_pool=_floats(_of_pool(layout, held["last"] if probe is None else probe)),
        ),
    )


def _of_pool(layout: Layout, attention: Tensor) -> Tensor:
    """Return where each head looks (heads, rows, columns) from what the model's head reads.

    Args:
        layout: whose pool says that: the class token, the mean over patches, or the probe.
        attention: (1, heads, L, L) of the last block, or (1, heads, 1, L) of the probe.
    """
    prefix = layout.num_prefix_tokens
    is_mean = layout.pool == "gap"
    rows = attention[0, :, prefix:].mean(dim=1) if is_mean else attention[0, :, 0]
    return rows[:, prefix:].unflatten(1, layout.grid)


def _look_at_maps(model: Model, image: Tensor, meter: ReachMeter | None) -> Look:
    """Look with a network that ends in a map (ResNet, AxialResNet)."""
    last = [name for name in model.trace_names if name.rpartition("/")[2].startswith("unit")][-1]
    steps = step_names(model) if meter else []
    held = {}
    for name, value in model.trace_each(image, [*steps, last, "logits"]):
        if meter and name in steps:
            meter.add(name, value)
        else:
            held[name] = value
    maps = held[last][0]
    return Look(
        logits=_floats(held["logits"][0]),
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
