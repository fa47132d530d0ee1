"""Resizing pixels to the grey levels that other libraries give; pure functions."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from vitral.config.preprocessing import Preprocessing

Size = tuple[int, int]
"""Height, width in pixels."""
Box = tuple[int, int, int, int]
"""Top, left, height, width in pixels."""
Weights = tuple[np.ndarray, np.ndarray]
"""For each of n new pixels of a side, K old ones and their weights: (n, K) int, (n, K) float32."""


def resize(
    pixels: np.ndarray, size: Size, preprocessing: Preprocessing, *, box: Box | None = None
) -> np.ndarray:
    """Resize pixels as a preprocessing does, whatever its own size.

    Args:
        pixels: (H, W, C) uint8.
        size: to which the whole is resized.
        preprocessing: interpolation, antialias and rounding.
        box: the part of the result that is wanted; None: all.

    Returns:
        (h, w, C) in 0..255: uint8, or float32 without rounding, where bicubic overshoots.
    """
    box = (0, 0, *size) if box is None else box
    if pixels.shape[:2] == size:
        resized = crop(pixels, box)
    elif preprocessing.interpolation == "area" or (
        preprocessing.antialias and preprocessing.rounding != "round"
    ):
        resized = resize_as_tensorflow(pixels, size, box, preprocessing.interpolation)
    else:
        resized = _interpolate(pixels, size, preprocessing)
        if box[2:] != size:
            resized = crop(resized, box)
    return _to_levels(resized, preprocessing.rounding)


def crop(pixels: np.ndarray, box: Box) -> np.ndarray:
    """Cut a box out."""
    top, left, height, width = box
    return pixels[top : top + height, left : left + width]


def in_order(pixels: np.ndarray) -> np.ndarray:
    """Return pixels (H, W, C) as torch wants them: row by row in memory that can be written to.

    Mirrored or rotated ones are copied by whole pixels: NumPy copies value by value far slower.
    """
    if pixels.flags.c_contiguous and pixels.flags.writeable:
        return pixels
    if pixels.strides[2] != pixels.itemsize:
        return pixels.copy()
    return pixels.view(_bytes_of(pixels.shape[2] * pixels.itemsize)).copy().view(pixels.dtype)


@functools.cache
def _bytes_of(count: int) -> np.dtype:
    return np.dtype((np.void, count))


def _interpolate(pixels: np.ndarray, size: Size, preprocessing: Preprocessing) -> np.ndarray:
    """Resize with torch: with antialias to uint8, as Pillow does, else to float32."""
    pixels = in_order(pixels)
    # Both by NumPy: torch's views release Python's lock, and [None] would hide from torch that
    # channels come last; this way they stay last.
    image = torch.from_numpy(pixels.reshape(1, *pixels.shape).transpose(0, 3, 1, 2))
    if not preprocessing.antialias:
        image = image.float()
    resized = F.interpolate(
        image,
        size,
        mode=preprocessing.interpolation,
        align_corners=False,
        antialias=preprocessing.antialias,
    )
    result: np.ndarray = resized.numpy()[0].transpose(1, 2, 0)
    return result


def _to_levels(image: np.ndarray, rounding: str) -> np.ndarray:
    if rounding == "none":
        return image.astype(np.float32, copy=False)
    if image.dtype == np.uint8:
        return image
    whole = np.rint(image) if rounding == "round" else image
    return whole.clip(0, 255).astype(np.uint8)


def resize_as_tensorflow(
    pixels: np.ndarray, size: Size, box: Box, interpolation: str
) -> np.ndarray:
    """Resize as `tf.image.resize` does with antialias or by area.

    The sums are in float32 and in TensorFlow's order: on a flat image they lie slightly above or
    below the grey level, and truncation turns that into a difference of a whole level.

    Args:
        pixels: (H, W, C) uint8.
        size: to which the whole is resized.
        box: the part of the result that is wanted; no more is computed.
        interpolation: "bilinear", "bicubic" (a = -0.5, as in Pillow) or "area".

    Returns:
        (h, w, C) float32 of the box's size.

    Source: TensorFlow's kernels `scale_and_translate_op.cc` and `resize_area_op.cc`.
    """
    top, left, height, width = box
    rows, row_weights = _weights(pixels.shape[0], size[0], interpolation)
    columns, column_weights = _weights(pixels.shape[1], size[1], interpolation)
    rows, row_weights = rows[top : top + height], row_weights[top : top + height]
    columns, column_weights = columns[left : left + width], column_weights[left : left + width]
    first = columns.min()
    reached = pixels[:, first : columns.max() + 1]
    result = _weighted(reached, rows, row_weights, axis=0)
    result = _weighted(result, columns - first, column_weights, axis=1)
    if interpolation == "area":
        area = _step(pixels.shape[0], size[0]) * _step(pixels.shape[1], size[1])
        result *= np.float32(1) / area
    return result


def _weights(length: int, new_length: int, interpolation: str) -> Weights:
    if interpolation == "area":
        return _areas(length, new_length)
    return _kernel_weights(length, new_length, bicubic=interpolation == "bicubic")


def _step(length: int, new_length: int) -> np.float32:
    return np.float32(length) / np.float32(new_length)


def _areas(length: int, new_length: int) -> Weights:
    """Return how much of each old pixel a new one covers, in old pixels."""
    step = _step(length, new_length)
    start = np.arange(new_length, dtype=np.float32)[:, None] * step
    stop = np.arange(1, new_length + 1, dtype=np.float32)[:, None] * step
    positions = np.floor(start).astype(int) + np.arange(math.ceil(step) + 1)
    edges = positions.astype(np.float32)
    covered = np.minimum(edges + 1 - start, stop - edges).clip(0, min(step, np.float32(1)))
    return positions.clip(max=length - 1), covered


def _kernel_weights(length: int, new_length: int, *, bicubic: bool) -> Weights:
    """Return the weights of a kernel that is widened where the image shrinks; they sum to 1."""
    one = np.float32(1)
    step = one / _step(new_length, length)
    widening = max(step, one)
    radius = widening * np.float32(2 if bicubic else 1)
    middle = (np.arange(new_length, dtype=np.float32)[:, None] + 0.5) * step
    first = np.ceil(middle - radius - 0.5).clip(0)
    last = np.floor(middle + radius - 0.5).clip(max=length - 1)
    positions = first + np.arange((last - first).max() + 1, dtype=np.float32)
    distances = np.abs((positions + 0.5 - middle) * (one / widening))
    weights = _cubic(distances) if bicubic else (1 - distances).clip(0)
    weights = np.where(positions <= last, weights, np.float32(0))
    weights *= 1 / np.add.accumulate(weights, axis=1)[:, -1:]  # summed one by one
    return positions.astype(int).clip(max=length - 1), weights


def _cubic(distances: np.ndarray) -> np.ndarray:
    """Return Keys' cubic kernel with a = -0.5 (IEEE Transactions ASSP 29, 1981, equation 4)."""
    near = ((1.5 * distances - 2.5) * distances) * distances + 1
    far = ((-0.5 * distances + 2.5) * distances - 4) * distances + 2
    return np.where(distances < 1, near, np.where(distances < 2, far, np.float32(0)))


def _weighted(
    values: np.ndarray, positions: np.ndarray, weights: np.ndarray, *, axis: int
) -> np.ndarray:
    """Sum values (H, W, C), weighted, along an axis, for each of its n new positions."""
    shape = [1, 1, 1]
    shape[axis] = len(positions)
    total = values.take(positions[:, 0], axis) * weights[:, 0].reshape(shape)
    for k in range(1, positions.shape[1]):
        total += values.take(positions[:, k], axis) * weights[:, k].reshape(shape)
    return total
