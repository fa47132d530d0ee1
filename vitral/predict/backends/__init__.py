"""The interface of backends."""

from typing import Protocol

import torch
from torch import Tensor


class Backend(Protocol):
    """Runs a network on prepared pixels, including normalisation."""

    name: str
    """Such as "torch"."""
    precision: str
    """Of the matrix products, such as "float32"."""
    batch_sizes: tuple[int, ...]
    """Supported batch sizes; empty: any."""
    device: torch.device
    """Device of its inputs and outputs."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """Compute outputs.

        Args:
            pixels: (N, C, H, W) in 0..255 of the model's size, uint8, or float32 where its
                preprocessing does not round.

        Returns:
            (N, outputs) float32: logits, or features.
        """
        ...
