"""Position embeddings, and how they follow the images to another resolution."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vitral.errors import RequestError

POSITION_STD = 0.02


class PositionEmbedding(nn.Module):
    """One learned vector a token, counted along one axis. Source: ViT paper, section 3.1."""

    def __init__(self, num_tokens: int, embed_dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(1, num_tokens, embed_dim))

    def init_weights(self) -> None:
        """Draw the table from N(0, 0.02), as the official code does."""
        nn.init.normal_(self.table, std=POSITION_STD)

    def forward(self, tokens: Float[Tensor, "N L D"]) -> Float[Tensor, "N L D"]:
        """Add to each token the vector of its place."""
        return tokens + self.table


def resize_position_table(
    table: Float[Tensor, "1 L D"],
    *,
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    num_prefix_tokens: int,
) -> Float[Tensor, "1 M D"]:
    """Interpolate a table to another grid of patches; the rows of prefix tokens stay as they are.

    Bilinear with aligned corners: equal to the official code's `scipy.ndimage.zoom(order=1)`.
    Source: ViT paper, section 3.2; vision_transformer `checkpoint.interpolate_posembed`.

    Raises:
        RequestError: the table does not have the rows of the old grid.
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
    # In float64, as scipy: float32 places the new points up to 3e-6 away.
    resized = F.interpolate(image_like.double(), new_grid, mode="bilinear", align_corners=True)
    return torch.cat([prefix, resized.to(table.dtype).flatten(2).transpose(1, 2)], dim=1)
