"""RandAugment: some of sixteen changes of colour and shape, drawn anew for every image."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from vitral.data.decode import luma

UNIFORMS_OF_CHANGE = 4
"""For each change: its kind, its direction, and its position down and right."""
_FULL_MAGNITUDE = 10
_FILL = 128
# The original counts pixels of images of 224; shares of the sides fit any size.
_MOVE = 100 / 224
_CUTOUT_HALF = 40 / 224


@dataclass(frozen=True)
class Draw:
    """How one change is made."""

    strength: float
    """Magnitude / 10."""
    sign: int = 1
    """1 or -1: the direction of a change that has one."""
    down: float = 0.5
    """Where, as a share of the height, in [0, 1)."""
    right: float = 0.5
    """Where, as a share of the width, in [0, 1)."""


def randaugment(image: np.ndarray, numbers: np.ndarray, *, magnitude: float) -> np.ndarray:
    """Change an image a few times, each change drawn from all with equal chance.

    Args:
        image: (H, W, C) in 0..255; computed in eight bits, whatever the type.
        numbers: (4 for each change,) in [0, 1).
        magnitude: of every change; 10: the original's full strength, above it more.

    Returns:
        (H, W, C) of the image's type.

    Source: Cubuk et al. (arXiv 1909.13719), algorithm 1, with the changes and strengths of the code
    that trained the weights of arXiv 2106.10270. Other than there, moves and holes are shares of
    the sides, and contrast is around the true mean.
    """
    changed = np.rint(image).astype(np.uint8)
    for kind, direction, down, right in numbers.reshape(-1, UNIFORMS_OF_CHANGE):
        change = CHANGES[int(kind * len(CHANGES))]
        draw = Draw(magnitude / _FULL_MAGNITUDE, 1 if direction < 0.5 else -1, down, right)
        changed = change(changed, draw)
    return changed.astype(image.dtype, copy=False)


def auto_contrast(image: np.ndarray, _: Draw) -> np.ndarray:
    """Stretch every channel to 0..255."""
    return _by_channel(image, ImageOps.autocontrast)


def equalize(image: np.ndarray, _: Draw) -> np.ndarray:
    """Make all values of every channel about equally frequent."""
    return _by_channel(image, ImageOps.equalize)


def invert(image: np.ndarray, _: Draw) -> np.ndarray:
    """Swap dark and bright."""
    return 255 - image


def posterize(image: np.ndarray, draw: Draw) -> np.ndarray:
    """Keep the upper bits: 4 at full strength, more above it and fewer below."""
    bits = min(8, int(4 * draw.strength))
    return image & np.uint8(0xFF << (8 - bits) & 0xFF)


def solarize(image: np.ndarray, draw: Draw) -> np.ndarray:
    """Invert values from a threshold on, which none reaches from full strength on."""
    return np.where(image < int(256 * draw.strength), image, 255 - image)


def solarize_add(image: np.ndarray, draw: Draw) -> np.ndarray:
    """Brighten the darker half of the values."""
    brighter = np.minimum(image.astype(np.int16) + int(110 * draw.strength), 255)
    return np.where(image < 128, brighter.astype(np.uint8), image)


def color(image: np.ndarray, draw: Draw) -> np.ndarray:
    """Move RGB away from its grey; other channels have none and stay."""
    return _away_from(np.broadcast_to(_grey(image), image.shape), image, draw)


def contrast(image: np.ndarray, draw: Draw) -> np.ndarray:
    """Move values away from the mean grey; without RGB, each channel from its own mean."""
    mean = np.rint(_grey(image).mean(axis=(0, 1))).astype(np.uint8)
    return _away_from(np.broadcast_to(mean, image.shape), image, draw)


def brightness(image: np.ndarray, draw: Draw) -> np.ndarray:
    """Move values away from black."""
    return _away_from(np.zeros_like(image), image, draw)


def sharpness(image: np.ndarray, draw: Draw) -> np.ndarray:
    """Move values away from their smoothed neighbourhood; edges of the image stay."""
    smooth = _by_channel(image, lambda channel: channel.filter(ImageFilter.SMOOTH))
    return _away_from(smooth, image, draw)


def rotate(image: np.ndarray, draw: Draw) -> np.ndarray:
    """Rotate around the centre, by 30 degrees at full strength."""
    height, width = image.shape[:2]
    angle = math.radians(30 * draw.sign * draw.strength)
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = width / 2, height / 2
    return _affine(image, (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y))


def shear_x(image: np.ndarray, draw: Draw) -> np.ndarray:
    """Move each row by a share of its distance from the top, 0.3 at full strength."""
    return _affine(image, (1, 0.3 * draw.sign * draw.strength, 0), (0, 1, 0))


def shear_y(image: np.ndarray, draw: Draw) -> np.ndarray:
    """Move each column by a share of its distance from the left, 0.3 at full strength."""
    return _affine(image, (1, 0, 0), (0.3 * draw.sign * draw.strength, 1, 0))


def translate_x(image: np.ndarray, draw: Draw) -> np.ndarray:
    """Move right or left, by 100/224 of the width at full strength."""
    pixels = draw.sign * draw.strength * _MOVE * image.shape[1]
    return _affine(image, (1, 0, pixels), (0, 1, 0))


def translate_y(image: np.ndarray, draw: Draw) -> np.ndarray:
    """Move down or up, by 100/224 of the height at full strength."""
    pixels = draw.sign * draw.strength * _MOVE * image.shape[0]
    return _affine(image, (1, 0, 0), (0, 1, pixels))


def cutout(image: np.ndarray, draw: Draw) -> np.ndarray:
    """Fill a box with grey (arXiv 1708.04552), 80/224 of the sides at full strength."""
    sides = np.array(image.shape[:2])
    centre = (sides * [draw.down, draw.right]).astype(int)
    half = (sides * _CUTOUT_HALF * draw.strength).astype(int)
    (top, left), (bottom, right) = np.maximum(centre - half, 0), centre + half
    changed = image.copy()
    changed[top:bottom, left:right] = _FILL
    return changed


CHANGES: tuple[Callable[[np.ndarray, Draw], np.ndarray], ...] = (
    auto_contrast,
    equalize,
    invert,
    rotate,
    posterize,
    solarize,
    color,
    contrast,
    brightness,
    sharpness,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    cutout,
    solarize_add,
)
"""Each from uint8 (H, W, C) and a draw to the same shape and type."""
SHAPE_CHANGES = frozenset({rotate, shear_x, shear_y, translate_x, translate_y, cutout})
"""Those of `CHANGES` that move or hide pixels, which no mask and no box follows."""


def _grey(image: np.ndarray) -> np.ndarray:
    return luma(image) if image.shape[2] == 3 else image


def _away_from(base: np.ndarray, image: np.ndarray, draw: Draw) -> np.ndarray:
    """Go from `base` to the image and beyond: 1.9 of the way at full strength."""
    start, end = (
        Image.fromarray(np.ascontiguousarray(pixels).reshape(image.shape[0], -1))
        for pixels in (base, image)
    )
    return np.asarray(Image.blend(start, end, 1.8 * draw.strength + 0.1)).reshape(image.shape)


def _affine(image: np.ndarray, x_from: tuple[float, ...], y_from: tuple[float, ...]) -> np.ndarray:
    """Take each pixel (x, y, 1) from the nearest one at these products; grey from outside."""
    size = (image.shape[1], image.shape[0])
    coefficients = (*x_from, *y_from)
    return _by_channel(
        image,
        lambda channel: channel.transform(
            size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST, fillcolor=_FILL
        ),
    )


def _by_channel(image: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    channels = (np.ascontiguousarray(image[:, :, i]) for i in range(image.shape[2]))
    return np.stack([np.asarray(change(Image.fromarray(c))) for c in channels], axis=2)
