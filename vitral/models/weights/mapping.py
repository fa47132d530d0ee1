"""Other people's tensors under our names: a table that is read in both directions."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vitral.errors import ModelFileError

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """How some of their tensors become one of ours, and the inverse."""

    read: Callable[[list[Tensor]], Tensor]
    write: Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class Entry:
    """One of our tensors and where it is in another format."""

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
# GroupNorm's tensors are (1, 1, 1, C) in the files that were released, (C,) in later ones.
FLAX_GROUP_NORM = _single(torch.flatten, lambda t: t.view(1, 1, 1, -1))
VECTOR = _single(torch.flatten, lambda t: t)
# A head that is a 1 x 1 convolution.
FLAX_CONV_HEAD = _single(lambda t: t.reshape(t.shape[-2:]).mT, lambda t: t.T[None, None])
TORCH_CONV_HEAD = _single(lambda t: t.flatten(1), lambda t: t[:, :, None, None])
# Queries, keys and values side by side.
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
    """Return a tensor whose axis must be that of the heads; transposed, its size would be alike."""
    if tensor.shape[axis] != num_heads:
        raise ValueError(f"axis {axis} is of {num_heads} heads")
    return tensor


def pair(
    ours: str, theirs: str, *, weight: str = "weight", bias: str = "bias", layout: Layout = SAME
) -> list[Entry]:
    """Return the entries of a weight and a bias.

    Args:
        ours: name of our module.
        theirs: what stands before `weight` and `bias`, with its separator.
        weight: their name of the weight.
        bias: their name of the bias.
        layout: of the weight; the bias is taken as it is.
    """
    return [
        Entry(f"{ours}.weight", (theirs + weight,), layout),
        Entry(f"{ours}.bias", (theirs + bias,), SAME),
    ]


def read_entries(
    tensors: Tensors, entries: Iterable[Entry], *, path: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return our tensors, those that are there, and the names of theirs that are left over.

    Raises:
        ModelFileError: a tensor has not the number of axes that it should.
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
