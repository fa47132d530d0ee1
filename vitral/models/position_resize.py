"""How position tables follow the images to another grid of patches."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vitral.errors import RequestError

# DINO's and DINOv2's authors scale by (new + 0.1) / old (`interpolate_pos_encoding`).
DINO_OFFSET = 0.1


def resize_position_table(
    table: Float[Tensor, "1 L D"],
    *,
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    num_prefix_tokens: int,
    method: str = "bilinear_corners",
) -> Float[Tensor, "1 M D"]:
    """Interpolate a table to another grid of patches; the rows of prefix tokens stay as they are.

    Args:
        table: a row for each prefix token, then for each patch, row by row.
        old_grid: patches down and across that the table is for.
        new_grid: those wanted; the table itself is returned when they are the same.
        num_prefix_tokens: rows that are not resized.
        method: of `ViTConfig.position_resize`.

    Raises:
        RequestError: the table does not have the rows of the old grid.

    Source: ViT paper, section 3.2; "bilinear_corners" equals the official code's
    `scipy.ndimage.zoom(order=1)` (vision_transformer, `checkpoint.interpolate_posembed`).
    """
    expected = old_grid[0] * old_grid[1] + num_prefix_tokens
    if table.shape[1] != expected:
        raise RequestError(
            f"a position table of {table.shape[1]} rows is not one of {old_grid[0]} x "
            f"{old_grid[1]} "
            f"patches and {num_prefix_tokens} prefix tokens: give the image_size of the weights"
        )
    if old_grid == new_grid:
        return table
    prefix, places = table[:, :num_prefix_tokens], table[:, num_prefix_tokens:]
    image_like = places.transpose(1, 2).unflatten(2, old_grid)
    resized = _interpolate(image_like, new_grid, method=method)
    return torch.cat([prefix, resized.to(table.dtype).flatten(2).transpose(1, 2)], dim=1)


def resize_axis_table(table: Float[Tensor, "1 A D"], length: int) -> Float[Tensor, "1 B D"]:
    """Interpolate a table of one axis to another length, linearly, its ends kept."""
    if table.shape[1] == length:
        return table
    resized = F.interpolate(
        _precise(table).transpose(1, 2), length, mode="linear", align_corners=True
    )
    return resized.transpose(1, 2).to(table.dtype)


def resize_offset_table(
    table: Float[Tensor, "heads O d"], *, old_grid: tuple[int, int], new_grid: tuple[int, int]
) -> Float[Tensor, "heads Q d"]:
    """Interpolate a table of offsets in reading order to another grid.

    An offset in reading order stands for steps down and across, and for one row more and a width
    less: each pair of steps is scaled from the new grid to the old, its vector interpolated there
    between whole steps, and what pairs with the same new offset give is averaged.

    Args:
        table: a row for each offset from -(P - 1) to P - 1, of P = old rows x old columns.
        old_grid: patches down and across that the table is for.
        new_grid: those wanted.
    """
    if old_grid == new_grid:
        return table
    new_rows, new_columns = new_grid
    num_places = new_rows * new_columns
    precise = _precise(table)
    summed = precise.new_zeros(table.shape[0], 2 * num_places - 1, table.shape[2])
    counts = precise.new_zeros(2 * num_places - 1)
    across = torch.arange(1 - new_columns, new_columns, device=table.device)
    for step_down in range(1 - new_rows, new_rows):
        rows = _offset_rows(precise, step_down, across, old_grid, new_grid)
        offsets = step_down * new_columns + across + num_places - 1
        summed[:, offsets] += rows
        counts[offsets] += 1
    return (summed / counts[:, None]).to(table.dtype)


def _offset_rows(
    table: Tensor,
    step_down: int,
    across: Tensor,
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
) -> Tensor:
    """Return the vectors (heads, steps, d) at one new step down and all new steps across."""
    limits = [side - 1 for side in old_grid]
    scales = [limit / max(new - 1, 1) for limit, new in zip(limits, new_grid, strict=True)]
    # By way of float32, as the tables that lie on file were resized.
    y = torch.tensor([step_down * scales[0]], device=table.device).to(table.dtype)
    x = across.to(table.dtype) * scales[1]
    num_places = old_grid[0] * old_grid[1]
    total = table.new_zeros(table.shape[0], len(across), table.shape[2])
    for corner_y in (y.floor(), y.floor() + 1):
        for corner_x in (x.floor(), x.floor() + 1):
            weight = (1 - (y - corner_y).abs()) * (1 - (x - corner_x).abs())
            whole_y = corner_y.clamp(-limits[0], limits[0])
            whole_x = corner_x.clamp(-limits[1], limits[1])
            offset = (whole_y * old_grid[1] + whole_x).long() + num_places - 1
            total += table[:, offset] * weight[:, None]
    return total


def _precise(table: Tensor) -> Tensor:
    """Return a table in float64, as scipy: float32 places the new points up to 3e-6 away.

    Apple's GPUs have no float64.
    """
    return table.float() if table.device.type == "mps" else table.double()


def _interpolate(image_like: Tensor, grid: tuple[int, int], *, method: str) -> Tensor:
    if method == "bilinear_corners":
        return F.interpolate(_precise(image_like), grid, mode="bilinear", align_corners=True)
    image_like = image_like.float()
    if method == "bicubic_corners":
        return F.interpolate(image_like, grid, mode="bicubic", align_corners=True)
    if method == "bicubic_offset":
        scale = [
            (new + DINO_OFFSET) / old for new, old in zip(grid, image_like.shape[2:], strict=True)
        ]
        return F.interpolate(image_like, scale_factor=scale, mode="bicubic", align_corners=False)
    antialias = method == "bicubic_antialias"
    return F.interpolate(image_like, grid, mode="bicubic", align_corners=False, antialias=antialias)
