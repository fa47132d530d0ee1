"""What every back end offers."""

from typing import Protocol

import torch
from torch import Tensor


class Backend(Protocol):
    """Runs a network on pixels as they were prepared; normalisation is inside."""

    name: str
    """Such as "torch"."""
    precision: str
    """Of the matrix products, such as "float32"."""
    batch_sizes: tuple[int, ...]
    """That it can be given; empty: any."""
    device: torch.device
    """Where it takes pixels and gives outputs."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """Compute outputs.

        Args:
            pixels: (N, C, H, W) in 0..255 of the model's size, uint8, or float32 where its
                preprocessing does not round.

        Returns:
            (N, outputs) float32: logits, or features.
        """
        ...
