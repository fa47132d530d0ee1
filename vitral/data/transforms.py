"""From decoded pixels to the model's size and range, with or without random changes."""

import numpy as np
import torch
from torch import Tensor

from vitral.data.decode import luma
from vitral.data.geometry import (
    NUM_UNIFORMS,
    Geometry,
    apply_to_image,
    central_geometry,
    draw_geometry,
    size_of,
)
from vitral.data.levels import to_eight_bit_range
from vitral.data.randaugment import UNIFORMS_OF_CHANGE, randaugment
from vitral.data.resize import Size
from vitral.errors import DataError
from vitral.spec.preprocessing import Preprocessing
from vitral.spec.run import AugmentSettings


def preprocess(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Bring decoded pixels to the model's size, as in evaluation and prediction.

    Args:
        pixels: (H, W, C), as decoded: uint8, or values of more than eight bits.
        preprocessing: of the model.

    Returns:
        (h, w, C) in 0..255: uint8, or float32 without rounding.
    """
    geometry = central_geometry(size_of(pixels), preprocessing)
    return apply_to_image(match_model(pixels, preprocessing), geometry, preprocessing)


def augment(
    pixels: np.ndarray,
    uniforms: np.ndarray,
    *,
    settings: AugmentSettings,
    preprocessing: Preprocessing,
    geometry: Geometry | None = None,
) -> np.ndarray:
    """Crop, resize and change decoded pixels for training; they are mirrored in the batch.

    Args:
        pixels: (H, W, C), as decoded.
        uniforms: (num_uniforms(settings),) in [0, 1), of this example in this epoch.
        settings: which changes.
        preprocessing: of the model.
        geometry: drawn with the same random numbers; None: it is drawn for these pixels.

    Returns:
        (h, w, C) in 0..255, as `preprocess` does.
    """
    if geometry is None:
        geometry = draw_geometry(
            size_of(pixels), uniforms, settings=settings, preprocessing=preprocessing
        )
    image = apply_to_image(match_model(pixels, preprocessing), geometry, preprocessing)
    if settings.randaugment:
        magnitude = settings.randaugment_magnitude
        image = randaugment(image, uniforms[NUM_UNIFORMS:], magnitude=magnitude)
    return image


def crop_reduction(
    image_size: Size,
    uniforms: np.ndarray,
    *,
    settings: AugmentSettings,
    preprocessing: Preprocessing,
) -> int:
    """Return by how much a JPEG can be decoded smaller so that its crop still fills the model.

    `augment` then draws the box anew, with the same random numbers, on the smaller image: its edges
    move by less than two of the model's pixels, and once in 500 times another of the ten tries
    fits.
    """
    if settings.crop != "inception":
        return 1
    return draw_geometry(
        image_size, uniforms, settings=settings, preprocessing=preprocessing
    ).max_reduction


def num_uniforms(settings: AugmentSettings) -> int:
    """Return how many random numbers an example needs in an epoch."""
    return NUM_UNIFORMS + UNIFORMS_OF_CHANGE * settings.randaugment


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Bring a batch (N, C, H, W) of 0..255 into the range that the model wants, on its device."""
    mean = torch.tensor(preprocessing.mean, device=images.device).view(1, -1, 1, 1) * 255
    std = torch.tensor(preprocessing.std, device=images.device).view(1, -1, 1, 1) * 255
    return images.to(torch.float32, copy=True).sub_(mean).div_(std)


def match_model(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Bring decoded pixels into 0..255 and into the model's channels, at their own size.

    Raises:
        DataError: numbers of channels that have no one meaning for the model.
    """
    pixels = to_eight_bit_range(pixels, preprocessing.levels)
    own, channels = pixels.shape[2], preprocessing.channels
    if own == channels:
        return pixels
    if not fits_channels(own, channels):
        raise DataError(f"an image of {own} channels for a model of {channels}")
    return pixels.repeat(3, axis=2) if own == 1 else luma(pixels)


def fits_channels(own: int, wanted: int) -> bool:
    """Say whether pixels can be given to a model: only grey and RGB turn into each other."""
    return own == wanted or {own, wanted} == {1, 3}
