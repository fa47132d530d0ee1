"""Axial attention on a grid of tokens: along rows, then along columns. Source: ViT paper, D.6."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitral.models.layers import EncoderBlock
from vitral.models.position import Heads


class AxialBlock(nn.Module):
    """Row self-attention and MLP, then column self-attention and MLP.

    The paper does not say how a class token takes part. Here it is put at the beginning of every
    row, and then of every column, and continues as the mean over those lines' outputs.
    """

    def __init__(
        self,
        row: EncoderBlock,
        column: EncoderBlock,
        *,
        grid: tuple[int, int],
        num_prefix_tokens: int,
    ) -> None:
        super().__init__()
        self.row, self.column = row, column
        self.grid, self.num_prefix_tokens = grid, num_prefix_tokens

    def init_weights(self) -> None:
        """Draw fresh weights."""
        self.row.init_weights()
        self.column.init_weights()

    def forward(
        self, tokens: Float[Tensor, "N L D"], drop_path_scale: Float[Tensor, "N 4"] | None = None
    ) -> Float[Tensor, "N L D"]:
        """Pass the tokens along rows, then along columns."""
        row_scale, column_scale = (
            (None, None)
            if drop_path_scale is None
            else (drop_path_scale[:, :2], drop_path_scale[:, 2:])
        )
        after_row = self._along(self.row, tokens, row_scale, axis=2)
        return self._along(self.column, after_row, column_scale, axis=1)

    def with_attention(
        self,
        tokens: Float[Tensor, "N L D"],
        drop_path_scale: Float[Tensor, "N 4"] | None = None,
        heads: Heads = None,
    ) -> tuple[
        Float[Tensor, "N L D"], Float[Tensor, "N H heads A A"], Float[Tensor, "N W heads B B"]
    ]:
        """Return `forward`'s output, and the attention of some heads along rows and columns.

        Rows have A positions, columns B; a class token adds one at the beginning of each.
        """
        row_scale, column_scale = (
            (None, None)
            if drop_path_scale is None
            else (drop_path_scale[:, :2], drop_path_scale[:, 2:])
        )
        lines = (tokens.shape[0], -1)
        along_rows = self._lines(tokens, axis=2)
        rows = self.row.attention_weights(along_rows, heads=heads).unflatten(0, lines)
        after_row = self._along(self.row, tokens, row_scale, axis=2)
        down_columns = self._lines(after_row, axis=1)
        columns = self.column.attention_weights(down_columns, heads=heads).unflatten(0, lines)
        return self._along(self.column, after_row, column_scale, axis=1), rows, columns

    def _along(
        self, block: EncoderBlock, tokens: Tensor, drop_path_scale: Tensor | None, *, axis: int
    ) -> Tensor:
        """Run a block on every line of the grid: rows for axis 2, columns for axis 1."""
        lines = self._lines(tokens, axis=axis)
        num_lines = lines.shape[0] // tokens.shape[0]
        if drop_path_scale is not None:
            drop_path_scale = drop_path_scale.repeat_interleave(num_lines, dim=0)
        outputs = block(lines, drop_path_scale).unflatten(0, (tokens.shape[0], num_lines))
        prefix, patches = (
            outputs[:, :, : self.num_prefix_tokens],
            outputs[:, :, self.num_prefix_tokens :],
        )
        if axis == 1:
            patches = patches.transpose(1, 2)
        patches = patches.flatten(1, 2)
        return torch.cat([prefix.mean(dim=1), patches], dim=1) if prefix.shape[2] else patches

    def _lines(self, tokens: Tensor, *, axis: int) -> Tensor:
        """Split the tokens into lines (N lines, positions, D), prefix tokens first in each."""
        prefix, patches = (
            tokens[:, : self.num_prefix_tokens],
            tokens[:, self.num_prefix_tokens :].unflatten(1, self.grid),
        )
        if axis == 1:
            patches = patches.transpose(1, 2)
        if self.num_prefix_tokens:
            repeated = prefix.unsqueeze(1).expand(-1, patches.shape[1], -1, -1)
            patches = torch.cat([repeated, patches], dim=2)
        return patches.flatten(0, 1)
