"""From decoded pixels to the model's size and range, with or without random changes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vitral.data.decode import decode_image, luma
from vitral.data.geometry import (
    NUM_UNIFORMS,
    Geometry,
    apply_to_image,
    central_geometry,
    draw_geometry,
    size_of,
)
from vitral.data.levels import to_eight_bit_range
from vitral.data.randaugment import CHANGES, SHAPE_CHANGES, UNIFORMS_OF_CHANGE, randaugment
from vitral.errors import DataError

if TYPE_CHECKING:
    from vitral.config.preprocessing import Preprocessing
    from vitral.config.run import AugmentSettings
    from vitral.data.jpeg import Scratch
    from vitral.data.resize import Size
    from vitral.data.sources.store import Content


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


def decode_with_geometry(
    content: Content,
    uniforms: np.ndarray,
    *,
    settings: AugmentSettings,
    preprocessing: Preprocessing,
    scaled: bool = False,
    scratch: Scratch | None = None,
) -> tuple[np.ndarray, Geometry]:
    """Decode an image for training and draw its geometry, on its true size however it is decoded.

    Args:
        content: a file's bytes, or pixels (H, W, C).
        uniforms: (num_uniforms(settings),) in [0, 1), of this example in this epoch.
        settings: which changes.
        preprocessing: of the model.
        scaled: whether a JPEG is decoded at 1/2, 1/4 or 1/8 of its sides where its inception crop
            still fills the model; other crops take whole images.
        scratch: memory that may hold the pixels until its next use; None: new memory.

    Returns:
        Pixels (h, w, C), and the geometry at the true size: that of the image's mask and boxes.
        Of the pixels it is `geometry.reduced(size_of(pixels))`.

    Raises:
        UnreadableImageError: damaged, or no image.
        UnsupportedImageError: of a kind that is not supported yet.
    """
    if not isinstance(content, bytes):
        size = size_of(content)
        return content, draw_geometry(
            size, uniforms, settings=settings, preprocessing=preprocessing
        )
    draw = functools.partial(
        draw_geometry, uniforms=uniforms, settings=settings, preprocessing=preprocessing
    )
    drawn: Geometry | None = None

    def reduce(size: Size) -> int:
        nonlocal drawn
        drawn = draw(size)
        return drawn.max_reduction

    pixels = decode_image(
        content,
        channels=preprocessing.channels,
        reduce=reduce if scaled and settings.crop == "inception" else None,
        scratch=scratch,
    )
    return pixels, drawn or draw(size_of(pixels))


def decode_and_augment(
    content: Content,
    uniforms: np.ndarray,
    *,
    settings: AugmentSettings,
    preprocessing: Preprocessing,
    scaled: bool = False,
    scratch: Scratch | None = None,
) -> tuple[np.ndarray, Geometry]:
    """Decode an image, then crop, resize and change it for training.

    Takes and raises what `decode_with_geometry` does, and DataError as `match_model` does.

    Returns:
        Pixels (h, w, C) in 0..255 as `augment` returns them, and their geometry at the image's true
        size, by which its mask and boxes follow; the images are mirrored in the batch.
    """
    pixels, geometry = decode_with_geometry(
        content,
        uniforms,
        settings=settings,
        preprocessing=preprocessing,
        scaled=scaled,
        scratch=scratch,
    )
    image = augment(
        pixels,
        uniforms,
        settings=settings,
        preprocessing=preprocessing,
        geometry=geometry.reduced(size_of(pixels)),
    )
    return image, geometry


def num_uniforms(settings: AugmentSettings) -> int:
    """Return how many random numbers an example needs in an epoch."""
    return NUM_UNIFORMS + UNIFORMS_OF_CHANGE * settings.randaugment


def moves_pixels(settings: AugmentSettings) -> bool:
    """Return whether an image may be changed in ways that its geometry does not describe.

    Then masks and boxes can't follow it: RandAugment draws from all its changes, those of shape
    among them. Whether pairs are mixed in the batch, `settings.mixes` says.
    """
    return settings.randaugment > 0 and not SHAPE_CHANGES.isdisjoint(CHANGES)


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
    found, channels = pixels.shape[2], preprocessing.channels
    if found == channels:
        return pixels
    if not fits_channels(found, channels):
        raise DataError(f"an image of {found} channels for a model of {channels}")
    return pixels.repeat(3, axis=2) if found == 1 else luma(pixels)


def fits_channels(found: int, wanted: int) -> bool:
    """Return whether pixels can be given to a model: only grey and RGB convert into each other."""
    return found == wanted or {found, wanted} == {1, 3}
