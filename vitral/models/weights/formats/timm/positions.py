"""Conversion between timm's `pos_embed` and our table, and the image size that they are for.

timm's table has rows for class token and registers or, with `no_embed_class`, for neither. Ours
has one for the class token and none for registers. On reading, a missing row becomes zeros, and
those of registers are added to the registers. On writing, registers get rows of zeros; if the class
token's row is zeros or there is no class token, neither gets rows.
"""

import torch
from torch import Tensor

from vitral.config.vit import ViTConfig
from vitral.models.weights.formats.timm.config import as_size, image_sizes_of, stride_of_stem
from vitral.models.weights.mapping import Layout, Tensors, side_of
from vitral.models.weights.source import WeightFile

TABLE, KERNEL = "pos_embed", "patch_embed.proj.weight"
PREFIX_TOKENS = ("cls_token", "dist_token", "reg_token")
"""In the order of their rows."""


def with_own_positions(named: dict[str, Tensor], source: WeightFile) -> dict[str, Tensor]:
    """Give the table a row for the class token and none for registers.

    Args:
        named: the tensors by timm's names; not changed.
        source: may state the image size.
    """
    tokens = {name: named[name] for name in PREFIX_TOKENS if name in named}
    if TABLE not in named or not tokens or not _are_rows([named[TABLE], *tokens.values()]):
        return named
    table, found = named[TABLE], dict(named)
    counts = [token.shape[1] for token in tokens.values()]
    num_rows = _num_prefix_rows(named, source, table.shape[1], sum(counts))
    class_row = table[:, :0]
    if "cls_token" in tokens:
        class_row = table[:, :1] if num_rows else torch.zeros_like(table[:, :1])
    if num_rows:
        for name, row in zip(tokens, table[:, :num_rows].split(counts, dim=1), strict=True):
            if name != "cls_token":
                found[name] = tokens[name] + row
    found[TABLE] = torch.cat([class_row, table[:, num_rows:]], dim=1)
    return found


def image_size(source: WeightFile) -> tuple[int, int]:
    """Return the image size that our table is for: stated, or that of a square grid.

    Raises:
        ModelFileError: the grid is not square, and no stated size fits it.
    """
    tensors, sizes = source.tensors, image_sizes_of(source)
    if TABLE not in tensors:
        return sizes[0] if sizes else (224, 224)
    num_patches = tensors[TABLE].shape[1] - ("cls_token" in tensors)
    if round(num_patches**0.5) ** 2 != num_patches:
        # The grid is not square: the requested size is taken as that of the weights, if it fits.
        wanted = as_size(source.stated.get("image_size"))
        sizes += [wanted] if wanted else []
    for size in sizes:
        if _num_patches(size, tensors) == num_patches:
            return size
    stride = stride_of_stem(tensors)
    height, width = tensors[KERNEL].shape[2:]
    pixels = (height * stride, width * stride)
    return side_of(num_patches, pixels, source.stated, path=source.path)


def positions_layout(config: ViTConfig) -> Layout:
    """Return the layout of the table, whose rows `with_own_positions` has put in order."""

    def write(table: Tensor) -> list[Tensor]:
        num_own = int(bool(config.class_token))
        if leaves_out_prefix(config, table):
            return [table[:, num_own:]]
        none = table.new_zeros(1, config.num_registers, table.shape[-1])
        return [torch.cat([table[:, :num_own], none, table[:, num_own:]], dim=1)]

    return Layout(lambda tensors: tensors[0], write)


def leaves_out_prefix(config: ViTConfig, table: Tensor) -> bool:
    """Return whether the written table has no rows for prefix tokens (timm's `no_embed_class`)."""
    if not config.num_prefix_tokens or config.pool == "token+register":
        return False
    return not config.class_token or not bool(table[:, 0].any())


def _are_rows(parts: list[Tensor]) -> bool:
    """Return whether all are (1, rows, D) with the same D; others fail when shapes are compared."""
    return all(part.ndim == 3 and part.shape[::2] == (1, parts[0].shape[-1]) for part in parts)


def _num_prefix_rows(named: Tensors, source: WeightFile, num_rows: int, num_tokens: int) -> int:
    """Return how many rows of a table are for prefix tokens: one for each token, or none."""
    for size in image_sizes_of(source):
        num_patches = _num_patches(size, named)
        if num_patches in (num_rows - num_tokens, num_rows):
            return num_rows - num_patches
    sides = {count: round(max(num_rows - count, 0) ** 0.5) for count in (num_tokens, 0)}
    square = [count for count, side in sides.items() if side * side == num_rows - count]
    if num_tokens not in square:
        wanted = as_size(source.stated.get("image_size"))
        num_patches = _num_patches(wanted, named) if wanted else -1
        if num_patches in (num_rows - num_tokens, num_rows):
            return num_rows - num_patches
    if square == [0]:
        source.assume(
            f"positions for {sides[0]} x {sides[0]} patches and none for the class token (timm's "
            "no_embed_class): stored_image_size= states another grid"
        )
    return square[0] if square else num_tokens


def _num_patches(size: tuple[int, int], tensors: Tensors) -> int:
    """Return the number of patches of an image; a hybrid's map rounds up, patches round down."""
    stride = stride_of_stem(tensors)
    rows, columns = (
        -(-side // stride) // patch
        for side, patch in zip(size, tensors[KERNEL].shape[-2:], strict=True)
    )
    return rows * columns
