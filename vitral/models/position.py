"""Position embeddings: those of the paper's Table 8 and fixed sines and cosines."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitral.config.vit import ViTConfig
from vitral.errors import RequestError

Heads = Sequence[int] | None
"""Indices of some attention heads; None: all."""
Grid = tuple[int, int] | None
"""Patches down and across, if not those of the config; None: the config's grid."""
Visible = Int[Tensor, "N V"] | None
"""Indices in the grid of the patches that are present; None: all in order."""
Relative = Callable[..., Tensor]
"""Returns the attention bias by offset for queries, and for some heads: `RelativePosition`."""
POSITION_STD = 0.02
SINCOS_TEMPERATURE = 10_000.0


class PositionEmbedding(nn.Module):
    """One learned vector per token, counted along one axis. Source: ViT paper, section 3.1."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.grid, self.resize = config.grid, config.position_resize
        self.num_prefix_tokens = config.num_prefix_tokens
        self.has_class_token = bool(config.class_token)
        num_places = config.num_patches + int(self.has_class_token)
        self.table = nn.Parameter(torch.empty(1, num_places, config.embed_dim))

    def init_weights(self) -> None:
        """Draw the table from N(0, 0.02), as the official code does."""
        nn.init.normal_(self.table, std=POSITION_STD)

    def no_weight_decay(self) -> set[str]:
        """Return the name of the table."""
        return {"table"}

    def forward(
        self, tokens: Float[Tensor, "N L D"], grid: Grid = None, visible: Visible = None
    ) -> Float[Tensor, "N L D"]:
        """Add to each token the vector of its position; registers have none."""
        first = int(self.has_class_token)
        table: Tensor = self.table
        if grid is not None:
            table = resize_position_table(
                table,
                old_grid=self.grid,
                new_grid=grid,
                num_prefix_tokens=first,
                method=self.resize,
            )
        if visible is None and first == self.num_prefix_tokens:
            return tokens + table
        positions = select_visible(table[:, first:], visible)
        return tokens + with_prefix(positions, table[:, :first], length=self.num_prefix_tokens)


class PositionEmbedding2d(nn.Module):
    """One learned vector per column and per row, concatenated. Source: ViT paper, D.4.

    The paper does not say which position the class token has: here it has a vector of its own.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        rows, columns = config.grid
        half = config.embed_dim // 2
        self.num_prefix_tokens = config.num_prefix_tokens
        self.columns = nn.Parameter(torch.empty(1, columns, half))
        self.rows = nn.Parameter(torch.empty(1, rows, half))
        self.class_place = None
        if config.class_token:
            self.class_place = nn.Parameter(torch.empty(1, 1, config.embed_dim))

    def init_weights(self) -> None:
        """Draw all tables from N(0, 0.02)."""
        for table in self.parameters():
            nn.init.normal_(table, std=POSITION_STD)

    def no_weight_decay(self) -> set[str]:
        """Return the names of the tables."""
        return {"columns", "rows", "class_place"}

    def forward(
        self, tokens: Float[Tensor, "N L D"], grid: Grid = None, visible: Visible = None
    ) -> Float[Tensor, "N L D"]:
        """Add to each patch the vectors of its column and row, to the class token its own."""
        num_rows, num_columns = grid or (self.rows.shape[1], self.columns.shape[1])
        columns = resize_axis_table(self.columns, num_columns)
        rows = resize_axis_table(self.rows, num_rows)
        by_column = columns.unsqueeze(1).expand(-1, num_rows, -1, -1)
        by_row = rows.unsqueeze(2).expand(-1, -1, num_columns, -1)
        positions = select_visible(torch.cat([by_column, by_row], dim=-1).flatten(1, 2), visible)
        return tokens + with_prefix(positions, self.class_place, length=self.num_prefix_tokens)


class SinCosPosition(nn.Module):
    """Sines and cosines of column and row; nothing is learned. Source: arXiv 2205.01580."""

    places: Tensor

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.num_prefix_tokens = config.num_prefix_tokens
        self.grid, self.embed_dim = config.grid, config.embed_dim
        self.register_buffer("places", sincos_table(self.grid, self.embed_dim), persistent=False)

    def init_weights(self) -> None:
        """Compute the table, also when memory was allocated after the model was built."""
        self.places.copy_(sincos_table(self.grid, self.embed_dim))

    def forward(
        self, tokens: Float[Tensor, "N L D"], grid: Grid = None, visible: Visible = None
    ) -> Float[Tensor, "N L D"]:
        """Add to each patch the vector of its position; the class token has none."""
        positions = self.places
        if grid is not None:
            positions = sincos_table(grid, self.embed_dim).to(positions)
        positions = select_visible(positions, visible)
        return tokens + with_prefix(positions, None, length=self.num_prefix_tokens)


class RelativePosition(nn.Module):
    """A learned key for each offset p_q - p_k, which queries attend to. Source: ViT paper, D.4.

    Positions are counted along one axis, row by row. Class token and registers have no offset:
    attention from and to them is unchanged.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.grid, self.num_prefix_tokens = config.grid, config.num_prefix_tokens
        num_tables = config.num_heads if config.relative_per_head else 1
        head_dim = config.embed_dim // config.num_heads
        self.offsets = nn.Parameter(torch.empty(num_tables, 2 * config.num_patches - 1, head_dim))

    def init_weights(self) -> None:
        """Draw the keys from N(0, 0.02)."""
        nn.init.normal_(self.offsets, std=POSITION_STD)

    def no_weight_decay(self) -> set[str]:
        """Return the name of the table."""
        return {"offsets"}

    def forward(
        self,
        query: Float[Tensor, "N heads L d"],
        heads: Heads = None,
        grid: Grid = None,
        visible: Visible = None,
    ) -> Float[Tensor, "N heads L L"]:
        """Return the bias of the attention's logits.

        Args:
            query: of the given heads.
            heads: their indices; None: all.
            grid: of the patches, if it is not the config's.
            visible: the patches that are present, if not all.
        """
        query = query[:, :, self.num_prefix_tokens :]
        prefix = self.num_prefix_tokens
        tables: Tensor = self.offsets
        if grid is not None:
            tables = resize_offset_table(tables, old_grid=self.grid, new_grid=grid)
        last = tables.shape[1] // 2  # the largest offset: the number of patches less one
        tables = tables if heads is None or len(tables) == 1 else tables[list(heads)]
        by_offset = query @ tables.to(query.dtype).transpose(1, 2) * query.shape[-1] ** -0.5
        position = torch.arange(last + 1, device=query.device)
        position = position.unsqueeze(0) if visible is None else visible
        offset = position[:, None, :, None] - position[:, None, None, :] + last
        bias = by_offset.gather(3, offset.expand(*by_offset.shape[:2], -1, -1))
        return nn.functional.pad(bias, (prefix, 0, prefix, 0))


def select_visible(positions: Float[Tensor, "1 P D"], visible: Visible) -> Float[Tensor, "M V D"]:
    """Return the vectors of each example's visible patches; M = 1 if all are visible."""
    return positions if visible is None else F.embedding(visible, positions[0])


def with_prefix(
    positions: Float[Tensor, "M P D"], class_place: Tensor | None, *, length: int
) -> Float[Tensor, "M L D"]:
    """Prepend the vectors of `length` prefix tokens: zeros except for the class token.

    Args:
        positions: vectors of the patches, for each example or, M = 1, for all.
        class_place: the class token's, (1, 1, D); (1, 0, D) or None if there is none.
        length: number of prefix tokens: class token and registers.
    """
    if not length:
        return positions
    count = positions.shape[0]
    first = [] if class_place is None else [class_place.expand(count, -1, -1)]
    none = positions.new_zeros(
        count, length - sum(tensor.shape[1] for tensor in first), positions.shape[-1]
    )
    return torch.cat([*first, none, positions], dim=1)


def sincos_table(grid: tuple[int, int], embed_dim: int) -> Float[Tensor, "1 P D"]:
    """Return sin x, cos x, sin y, cos y at wavelengths from 2 pi to 2 pi x 10,000.

    Source: big_vision, models/vit.py (posemb_sincos_2d); x counts columns, y rows.
    """
    # On the CPU whatever the default device, so a model that is built on "meta" has values too.
    quarter = embed_dim // 4
    power = torch.arange(quarter, dtype=torch.float64, device="cpu") / max(quarter - 1, 1)
    frequency = SINCOS_TEMPERATURE**-power
    y, x = torch.meshgrid(
        *(torch.arange(side, dtype=torch.float64, device="cpu") for side in grid), indexing="ij"
    )
    angles = [side.reshape(-1, 1) * frequency for side in (x, y)]
    parts = [function(angle) for angle in angles for function in (torch.sin, torch.cos)]
    return torch.cat(parts, dim=1).float().unsqueeze(0)


ADDED_POSITIONS = {"1d": PositionEmbedding, "2d": PositionEmbedding2d, "sincos2d": SinCosPosition}
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
    """Interpolate a table to another grid of patches, leaving the rows of prefix tokens unchanged.

    Args:
        table: a row for each prefix token, then for each patch, row by row.
        old_grid: patches down and across that the table is for.
        new_grid: those wanted; the table itself is returned if they are the same.
        num_prefix_tokens: number of first rows that are not resized.
        method: one of `ViTConfig.position_resize`.

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
    prefix, positions = table[:, :num_prefix_tokens], table[:, num_prefix_tokens:]
    image_like = positions.transpose(1, 2).unflatten(2, old_grid)
    resized = _interpolate(image_like, new_grid, method=method)
    return torch.cat([prefix, resized.to(table.dtype).flatten(2).transpose(1, 2)], dim=1)


def resize_axis_table(table: Float[Tensor, "1 A D"], length: int) -> Float[Tensor, "1 B D"]:
    """Interpolate a table of one axis linearly to another length, with corners aligned."""
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

    An offset in reading order is ambiguous: it stands for steps down and across, and also for one
    row more and a width less. Each such pair of steps is scaled from the new grid to the old, where
    its vector is interpolated; the vectors of all pairs with the same new offset are averaged.

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
    # Through float32, as the tables in existing files were resized.
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
    """Return a table in float64, as scipy; float32 shifts the new points by up to 3e-6.

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
