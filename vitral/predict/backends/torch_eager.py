"""The model as it was loaded, run by torch in eager mode."""

from collections.abc import Callable

import torch
from torch import Tensor

from vitral.config.preprocessing import Preprocessing
from vitral.data.transforms import normalise
from vitral.runtime.device import autocast


class TorchBackend:
    """Calls a model, or a method of it."""

    name = "torch"
    batch_sizes: tuple[int, ...] = ()

    def __init__(
        self,
        apply: Callable[[Tensor], Tensor],
        *,
        device: torch.device,
        precision: torch.dtype,
        preprocessing: Preprocessing,
    ) -> None:
        """Wrap a model.

        Args:
            apply: a model in evaluation mode, or a method: images (N, C, H, W) in the model's range
                to (N, ...).
            device: where the model is.
            precision: of the matrix products.
            preprocessing: of the model; gives the range of the images.
        """
        self._apply, self._preprocessing, self._dtype = apply, preprocessing, precision
        self.device = device
        self.precision = str(precision).removeprefix("torch.")

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Compute outputs of pixels."""
        images = normalise(pixels.to(self.device), self._preprocessing)
        with autocast(self.device, self._dtype):
            return self._apply(images).float()
