"""Position embeddings: the kinds of the paper's Table 8 and fixed waves."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitral.models.position_resize import (
    resize_axis_table,
    resize_offset_table,
    resize_position_table,
)
from vitral.spec.vit import ViTConfig

Heads = Sequence[int] | None
"""Some of an attention's heads by number; None: all."""
Grid = tuple[int, int] | None
"""Patches down and across, of another grid than the config's; None: that one."""
Visible = Int[Tensor, "N V"] | None
"""The patches, by their place in the grid, that are there at all; None: all in order."""
Relative = Callable[..., Tensor]
"""Gives what offsets add to the attention of queries, and of some heads: `RelativePosition`."""
POSITION_STD = 0.02
WAVE_TEMPERATURE = 10_000.0


class PositionEmbedding(nn.Module):
    """One learned vector a token, counted along one axis. Source: ViT paper, section 3.1."""

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
        """Name the table."""
        return {"table"}

    def forward(
        self, tokens: Float[Tensor, "N L D"], grid: Grid = None, visible: Visible = None
    ) -> Float[Tensor, "N L D"]:
        """Add to each token the vector of its place; registers have none."""
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
        places = choose_places(table[:, first:], visible)
        return tokens + with_prefix(places, table[:, :first], length=self.num_prefix_tokens)


class PositionEmbedding2d(nn.Module):
    """One learned vector a column and one a row, side by side. Source: ViT paper, D.4.

    The paper does not say where the class token sits: it has a vector of its own.
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
        """Name the tables."""
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
        places = choose_places(torch.cat([by_column, by_row], dim=-1).flatten(1, 2), visible)
        return tokens + with_prefix(places, self.class_place, length=self.num_prefix_tokens)


class WavePosition(nn.Module):
    """Sines and cosines of column and row; nothing is learned. Source: arXiv 2205.01580."""

    places: Tensor

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.num_prefix_tokens = config.num_prefix_tokens
        self.grid, self.embed_dim = config.grid, config.embed_dim
        self.register_buffer("places", wave_table(self.grid, self.embed_dim), persistent=False)

    def init_weights(self) -> None:
        """Compute the waves, also where memory was given after the model was built without."""
        self.places.copy_(wave_table(self.grid, self.embed_dim))

    def forward(
        self, tokens: Float[Tensor, "N L D"], grid: Grid = None, visible: Visible = None
    ) -> Float[Tensor, "N L D"]:
        """Add to each patch the waves of its place; the class token has none."""
        places = self.places
        if grid is not None:
            places = wave_table(grid, self.embed_dim).to(places)
        places = choose_places(places, visible)
        return tokens + with_prefix(places, None, length=self.num_prefix_tokens)


class RelativePosition(nn.Module):
    """A learned key for each offset p_q - p_k, which queries attend to. Source: ViT paper, D.4.

    Places are counted along one axis, row by row. A class token or register has no offset: its
    attention, and that to it, stays as it is.
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
        """Name the table."""
        return {"offsets"}

    def forward(
        self,
        query: Float[Tensor, "N heads L d"],
        heads: Heads = None,
        grid: Grid = None,
        visible: Visible = None,
    ) -> Float[Tensor, "N heads L L"]:
        """Return what is added to the attention's logits.

        Args:
            query: of all heads, or of those asked for.
            heads: which they are; None: all.
            grid: of the patches, if it is another than the config's.
            visible: the patches that are there, if not all.
        """
        query = query[:, :, self.num_prefix_tokens :]
        prefix = self.num_prefix_tokens
        tables: Tensor = self.offsets
        if grid is not None:
            tables = resize_offset_table(tables, old_grid=self.grid, new_grid=grid)
        last = tables.shape[1] // 2  # the largest offset: the number of patches less one
        tables = tables if heads is None or len(tables) == 1 else tables[list(heads)]
        by_offset = query @ tables.to(query.dtype).transpose(1, 2) * query.shape[-1] ** -0.5
        place = torch.arange(last + 1, device=query.device)
        place = place.unsqueeze(0) if visible is None else visible
        offset = place[:, None, :, None] - place[:, None, None, :] + last
        bias = by_offset.gather(3, offset.expand(*by_offset.shape[:2], -1, -1))
        return nn.functional.pad(bias, (prefix, 0, prefix, 0))


def choose_places(places: Float[Tensor, "1 P D"], visible: Visible) -> Float[Tensor, "M V D"]:
    """Return the rows of the visible patches, for each example; those of all for all alike."""
    return places if visible is None else F.embedding(visible, places[0])


def with_prefix(
    places: Float[Tensor, "M P D"], class_place: Tensor | None, *, length: int
) -> Float[Tensor, "M L D"]:
    """Put the rows of `length` prefix tokens before those of the patches: zeros but the class's.

    Args:
        places: of the patches, for each example or, M = 1, for all.
        class_place: (1, 1, D) of the class token, or (1, 0, D) or None where there is none.
        length: of class token and registers.
    """
    if not length:
        return places
    count = places.shape[0]
    first = [] if class_place is None else [class_place.expand(count, -1, -1)]
    none = places.new_zeros(count, length - sum(own.shape[1] for own in first), places.shape[-1])
    return torch.cat([*first, none, places], dim=1)


def wave_table(grid: tuple[int, int], embed_dim: int) -> Float[Tensor, "1 P D"]:
    """Return sin x, cos x, sin y, cos y at wavelengths from 2 pi to 2 pi x 10,000.

    Source: big_vision, models/vit.py (posemb_sincos_2d); x counts columns, y rows.
    """
    # On the CPU whatever the default device: a model that is built without memory has it too.
    quarter = embed_dim // 4
    power = torch.arange(quarter, dtype=torch.float64, device="cpu") / max(quarter - 1, 1)
    frequency = WAVE_TEMPERATURE**-power
    y, x = torch.meshgrid(
        *(torch.arange(side, dtype=torch.float64, device="cpu") for side in grid), indexing="ij"
    )
    angles = [side.reshape(-1, 1) * frequency for side in (x, y)]
    waves = [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
    return torch.cat(waves, dim=1).float().unsqueeze(0)


ADDED_POSITIONS = {"1d": PositionEmbedding, "2d": PositionEmbedding2d, "sincos2d": WavePosition}
