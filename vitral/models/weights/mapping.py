"""Mapping of other formats' tensors to Vitral's names, and of their shapes to a config."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitral.config.checks import as_pair
from vitral.config.resnet import ResNetConfig
from vitral.config.variants import RESNET_STAGES, VARIANTS
from vitral.errors import ModelFileError
from vitral.models.weights.source import WeightFile

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """Conversion of some of their tensors to one of ours, and the inverse."""

    read: Callable[[list[Tensor]], Tensor]
    write: Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class Entry:
    """One of our tensors and its names and layout in another format."""

    ours: str
    theirs: tuple[str, ...]
    layout: Layout


def _single(read: Callable[[Tensor], Tensor], write: Callable[[Tensor], Tensor]) -> Layout:
    return Layout(lambda tensors: read(tensors[0]), lambda tensor: [write(tensor)])


SAME = _single(lambda t: t, lambda t: t)
# A dense kernel is (in, out) in flax, (out, in) in torch.
FLAX_DENSE = _single(lambda t: t.mT, lambda t: t.mT)
# A convolution's kernel is HWIO in flax and TensorFlow, OIHW in torch.
FLAX_CONV = _single(lambda t: t.permute(3, 2, 0, 1), lambda t: t.permute(2, 3, 1, 0))
# GroupNorm's tensors are (1, 1, 1, C) in the released files, (C,) in later ones.
FLAX_GROUP_NORM = _single(torch.flatten, lambda t: t.view(1, 1, 1, -1))
VECTOR = _single(torch.flatten, lambda t: t)
# A head that is a 1 x 1 convolution.
FLAX_CONV_HEAD = _single(lambda t: t.reshape(t.shape[-2:]).mT, lambda t: t.T[None, None])
TORCH_CONV_HEAD = _single(lambda t: t.flatten(1), lambda t: t[:, :, None, None])
# Queries, keys and values, concatenated.
STACKED = Layout(torch.cat, lambda tensor: list(tensor.chunk(3)))


def flax_qkv_kernels(num_heads: int) -> Layout:
    """Return the layout of three kernels (D, heads, d)."""
    return Layout(
        lambda kernels: torch.cat([_of_heads(k, 1, num_heads).flatten(1).T for k in kernels]),
        lambda qkv: [part.T.unflatten(1, (num_heads, -1)) for part in qkv.chunk(3)],
    )


def flax_qkv_biases(num_heads: int) -> Layout:
    """Return the layout of three biases (heads, d)."""
    return Layout(
        lambda biases: torch.cat([_of_heads(bias, 0, num_heads).flatten() for bias in biases]),
        lambda qkv: [part.unflatten(0, (num_heads, -1)) for part in qkv.chunk(3)],
    )


def flax_out_kernel(num_heads: int) -> Layout:
    """Return the layout of an output kernel (heads, d, D)."""
    return _single(
        lambda t: _of_heads(t, 0, num_heads).flatten(0, 1).mT,
        lambda t: t.T.unflatten(0, (num_heads, -1)),
    )


def _of_heads(tensor: Tensor, axis: int, num_heads: int) -> Tensor:
    """Return the tensor after checking its axis of heads; a transposed one has the same size."""
    if tensor.shape[axis] != num_heads:
        raise ValueError(f"axis {axis} is of {num_heads} heads")
    return tensor


def pair(
    ours: str, theirs: str, *, weight: str = "weight", bias: str = "bias", layout: Layout = SAME
) -> list[Entry]:
    """Return the entries of a weight and a bias.

    Args:
        ours: name of our module.
        theirs: their prefix of `weight` and `bias`, with its separator.
        weight: their name of the weight.
        bias: their name of the bias.
        layout: of the weight; the bias is not converted.
    """
    return [
        Entry(f"{ours}.weight", (theirs + weight,), layout),
        Entry(f"{ours}.bias", (theirs + bias,), SAME),
    ]


def read_entries(
    tensors: Tensors, entries: Iterable[Entry], *, path: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return those of our tensors that exist, and the names of theirs that are left over.

    Raises:
        ModelFileError: a tensor has the wrong number of axes.
    """
    found: dict[str, Tensor] = {}
    left = dict(tensors)
    for entry in entries:
        if not all(name in left for name in entry.theirs):
            continue
        parts = [left.pop(name) for name in entry.theirs]
        try:
            found[entry.ours] = entry.layout.read(parts).contiguous()
        except (RuntimeError, IndexError, ValueError) as error:
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            raise ModelFileError(
                f"{path}: {entry.theirs[0]} has a shape that can't be right, {shapes}: {error}"
            ) from None
    return found, sorted(left)


def write_entries(tensors: Tensors, entries: Iterable[Entry]) -> dict[str, Tensor]:
    """Return the tensors of another format; every one of ours must have its entry."""
    written: dict[str, Tensor] = {}
    for entry in entries:
        parts = entry.layout.write(tensors[entry.ours])
        written |= {name: part.contiguous() for name, part in zip(entry.theirs, parts, strict=True)}
    return written


def side_of(
    num_patches: int, pixels: tuple[int, int], stated: Mapping[str, Any], *, path: str
) -> tuple[int, int]:
    """Return the image size that a table of positions is for.

    Args:
        num_patches: rows of the table, without prefix tokens.
        pixels: of the image for each patch, down and across.
        stated: may have `stored_image_size`. Otherwise the grid is taken as square; if it can't be,
            the requested `image_size` is used if it fits.
        path: for the message.

    Raises:
        ModelFileError: the grid is not square, and no image size was stated that fits it.
    """
    side = round(num_patches**0.5)
    is_square = side * side == num_patches
    name = "stored_image_size"
    if stated.get(name) is None and not is_square:
        name = "image_size"
    if stated.get(name) is not None:
        size = as_pair(stated[name], name=name)
        if (size[0] // pixels[0]) * (size[1] // pixels[1]) == num_patches:
            return size
        if name == "stored_image_size":
            raise ModelFileError(
                f"{path} has positions for {num_patches} patches, which {name}={size} does not "
                f"give with {pixels[0]} x {pixels[1]} pixels each"
            )
    if not is_square:
        raise ModelFileError(
            f"{path} has positions for {num_patches} patches, which is no square: state the "
            "stored_image_size=(height, width) that the weights are for"
        )
    return (side * pixels[0], side * pixels[1])


def heads_of(embed_dim: int, source: WeightFile) -> int:
    """Return the number of heads, which no shape determines: stated, or that of a known width.

    Raises:
        ModelFileError: a width that no variant has, and nothing was stated.
    """
    if source.stated.get("num_heads") is not None:
        return int(source.stated["num_heads"])
    for letter, variant in VARIANTS.items():
        if variant.embed_dim == embed_dim:
            source.assume(
                f"{variant.num_heads} attention heads, as ViT-{letter} of that width has: the "
                "weights do not tell; num_heads= states another number"
            )
            return variant.num_heads
    raise ModelFileError(
        f"{source.path} has tokens of width {embed_dim}, and a bare file does not tell the number "
        "of attention heads: state num_heads="
    )


def check_depth(found: int, stated: Any, *, path: str) -> None:
    """Check the number of layers against the one that `config.json` states, if any.

    Raises:
        ModelFileError: they differ: layers are missing, or the config is another model's.
    """
    if stated is not None and found != stated:
        raise ModelFileError(
            f"{path} has {found} layers, its config.json states {stated}: it is damaged or not "
            "whole"
        )


def assume_depth(shape: Mapping[str, int], source: WeightFile) -> None:
    """Record an assumption if the depth is not that of the variant with these widths."""
    for letter, variant in VARIANTS.items():
        same = {name for name, value in vars(variant).items() if shape[name] == value}
        if same == {"embed_dim", "mlp_dim", "num_heads"}:
            source.assume(
                f"that all {shape['depth']} layers are there: ViT-{letter} of these widths has "
                f"{variant.depth}"
            )


def resnet_shape(
    names: Iterable[str], pattern: str, root_width: int
) -> tuple[tuple[int, ...], float]:
    """Return the units of each stage and the width factor.

    Args:
        names: of all tensors.
        pattern: of a unit's name, with its stage and unit as groups.
        root_width: channels of the root.
    """
    units = {(int(m[1]), int(m[2])) for name in names if (m := re.match(pattern, name))}
    stages = sorted({stage for stage, _ in units})
    counts = tuple(sum(unit_stage == stage for unit_stage, _ in units) for stage in stages)
    return counts, root_width / 64


def name_of(stages: tuple[int, ...], width_factor: float) -> str:
    """Return the name of a ResNet, such as R50x1; an unknown one is named by its units."""
    for layers, known in RESNET_STAGES.items():
        if known == stages:
            return f"R{layers}x{width_factor:g}"
    return f"R({','.join(map(str, stages))})x{width_factor:g}"


def stem_name(stages: tuple[int, ...], width_factor: float) -> str:
    """Return the name of a hybrid's ResNet, such as R50x1; R is a root without stages."""
    if not stages:
        return "R"
    # At 16 the paper's hybrids have the fourth stage's units in the third.
    shortened: dict[tuple[int, ...], tuple[int, ...]] = {
        (*s[:2], s[2] + s[3]): s for s in RESNET_STAGES.values()
    }
    return name_of(shortened.get(stages, stages), width_factor)


def vit_name(
    shape: Mapping[str, int], *, patch: tuple[int, int], stem: ResNetConfig | None = None
) -> str:
    """Return the name of a ViT or hybrid, such as ViT-B/16; others are named by their shape."""
    letter = next((x for x, variant in VARIANTS.items() if vars(variant) == shape), None)
    letter = letter or f"{shape['embed_dim']}x{shape['depth']}"
    if stem is None:
        size = str(patch[0]) if patch[0] == patch[1] else f"{patch[0]}x{patch[1]}"
        return f"ViT-{letter}/{size}"
    if not stem.stages:
        return f"R+{letter}/{patch[0] * 2}"
    ratio = stem.stride * patch[0]
    resnet = stem_name(stem.stages, stem.width_factor)
    return f"R26+{letter}/{ratio}" if resnet == "R26x1" else f"{resnet}+ViT-{letter}/{ratio}"
