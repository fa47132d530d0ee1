"""The attention of a model's layers as it is applied, independent of the kernel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitral.errors import RequestError
from vitral.models.layout import AttentionLayer
from vitral.models.model import Model

Layer = int | Literal["pool"]


@dataclass(frozen=True, eq=False)
class AxialMaps:
    """Attention along the two axes of a map; rows of the last two axes sum to 1.

    With a class token, each line has one more position, its first.
    """

    rows: Tensor
    """(N, rows, heads, positions of a row, positions of a row)."""
    columns: Tensor
    """(N, columns, heads, positions of a column, positions of a column)."""


@torch.no_grad()
def attention_maps(
    model: Model,
    images: Float[Tensor, "N C H W"],
    *,
    layers: Sequence[Layer] | None = None,
    heads: Sequence[int] | None = None,
) -> list[Tensor | AxialMaps]:
    """Return the attention of some layers and heads; only those are computed and kept.

    (An AxialResNet's batch norm takes all heads of a layer at once: there all are computed.)

    Args:
        model: a ViT of any kind, or an AxialResNet; should be in evaluation mode.
        images: as the model's `preprocessing` returns them, on the model's device.
        layers: counted from 0, negative from the end; those of an AxialResNet are its units.
            "pool" is the attention of a pooling probe. None: all blocks, or all units.
        heads: counted from 0; None: all.

    Returns:
        For each layer, in the given order: (N, heads, L, L), whose rows (the queries) sum to 1,
        prefix tokens first; `AxialMaps` for attention along rows and columns; for "pool"
        (N, heads, 1, L).

    Raises:
        RequestError: the model has no attention, or no such layer or head.
    """
    names = layer_names(model)
    chosen_layers = list(range(len(names))) if layers is None else list(layers)
    indices = [_layer_index(model, layer, len(names)) for layer in chosen_layers]
    chosen_heads = None if heads is None else _chosen_heads(model, heads)
    trace_names = [_trace_names(model, names, index) for index in indices]
    found = dict(
        model.trace_each(images, [name for group in trace_names for name in group], chosen_heads)
    )
    return [found[group[0]] if len(group) == 1 else _as_maps(group, found) for group in trace_names]


def _as_maps(names: list[str], found: dict[str, Tensor]) -> AxialMaps:
    rows, columns = sorted(names, key=lambda name: name.endswith("/column_attention"))
    return AxialMaps(found[rows], found[columns])


def layer_names(model: Model) -> list[str]:
    """Return the names of the attention layers, from input to output.

    Raises:
        RequestError: the model has none.
    """
    steps = attention_steps(model)
    if not steps:
        raise RequestError(
            f"{model.config.name} is a convolutional network and has no attention: its filters, "
            "features and occlusion can be looked at"
        )
    return list(dict.fromkeys(step.layer for step in steps))


def has_attention(model: Model) -> bool:
    """Return whether a model has attention layers."""
    return bool(attention_steps(model))


def num_heads(model: Model) -> int:
    """Return the number of heads per layer."""
    return attention_steps(model)[0].num_heads


def probe_names(model: Model) -> list[str]:
    """Return the trace names of the pooling probe's attention: one, or none."""
    return [layer.name for layer in model.attention_layers() if layer.kind == "pool"]


def _layer_index(model: Model, layer: Layer, count: int) -> Layer:
    if layer == "pool":
        if not probe_names(model):
            raise RequestError(f"{model.config.name} does not pool by attention: leave 'pool' out")
        return layer
    if not isinstance(layer, int | np.integer) or not -count <= layer < count:
        pool = ", or 'pool'" if probe_names(model) else ""
        raise RequestError(
            f"there is no layer {layer!r}: {model.config.name} has {count} that attend, 0 to "
            f"{count - 1} (from the end -1 to -{count}){pool}"
        )
    return int(layer) % count


def _chosen_heads(model: Model, heads: Sequence[int]) -> list[int]:
    count = num_heads(model)
    for head in heads:
        if not -count <= head < count:
            raise RequestError(
                f"there is no head {head}: {model.config.name} has {count} a layer, 0 to "
                f"{count - 1}"
            )
    return [int(head) % count for head in heads]


def _trace_names(model: Model, names: list[str], index: Layer) -> list[str]:
    if index == "pool":
        return probe_names(model)
    assert isinstance(index, int)
    return [step.name for step in attention_steps(model) if step.layer == names[index]]


def full_attention(
    lines: Float[Tensor, "N lines heads A A"],
    *,
    grid: tuple[int, int],
    axis: Literal["rows", "columns"],
    num_prefix_tokens: int = 0,
) -> Float[Tensor, "N heads L L"]:
    """Expand attention along one axis to attention over all tokens, mostly zeros.

    A class token is the first position of every line, and its output is the mean over lines, so it
    attends to each line with an equal share.

    Args:
        lines: `rows` or `columns` of `AxialMaps`.
        grid: rows and columns of the map.
        axis: which of the two.
        num_prefix_tokens: 1 with a class token, else 0.

    Raises:
        RequestError: lines that do not fit the grid.
    """
    count, length = grid if axis == "rows" else grid[::-1]
    prefix = num_prefix_tokens
    line_length = length + prefix
    if (lines.shape[1], *lines.shape[3:]) != (count, line_length, line_length):
        raise RequestError(
            f"attention along {axis} of shape {tuple(lines.shape)} does not fit a grid of "
            f"{grid[0]} x {grid[1]} with {prefix} prefix tokens"
        )
    num_images, _, heads = lines.shape[:3]
    full = lines.new_zeros(num_images, heads, prefix + count * length, prefix + count * length)
    order = torch.arange(count * length, device=lines.device)
    order = order.view(grid) if axis == "rows" else order.view(grid).T
    for index, line in enumerate(order + prefix):
        weights = lines[:, index]
        full[:, :, line[:, None], line[None, :]] = weights[:, :, prefix:, prefix:]
        full[:, :, line, :prefix] = weights[:, :, prefix:, :prefix]
        full[:, :, :prefix, line] = weights[:, :, :prefix, prefix:] / count
        full[:, :, :prefix, :prefix] += weights[:, :, :prefix, :prefix] / count
    return full


def pixels_per_patch(model: Model) -> tuple[int, int]:
    """Return the height and width of a token in pixels of the image.

    A hybrid's patches are cut from a map: each of its positions covers `stride` pixels.
    """
    return model.layout().stride


def attention_steps(model: Model) -> list[AttentionLayer]:
    """Return the attentions of a model's layers, from input to output; an axial layer has two."""
    return [layer for layer in model.attention_layers() if layer.kind != "pool"]


def step_names(model: Model) -> list[str]:
    """Return the trace names of `attention_steps`."""
    return [step.name for step in attention_steps(model)]


def full_step(step: AttentionLayer, weights: Tensor) -> Tensor:
    """Return a traced step of attention as attention over all tokens (N, heads, L, L)."""
    if step.kind == "full":
        return weights
    axis: Literal["rows", "columns"] = "rows" if step.kind == "row" else "columns"
    return full_attention(
        weights, grid=step.grid, axis=axis, num_prefix_tokens=step.num_prefix_tokens
    )
