"""Images of more than eight bits: which of their values are black and white."""

import numpy as np

from vitral.errors import DataError

Levels = tuple[float, float]
"""The values that stand for black and white."""
_BITS = (8, 10, 12, 14, 16)


def is_deep(pixels: np.ndarray) -> bool:
    """Return whether pixels are of more than eight bits."""
    return pixels.dtype != np.uint8


def to_eight_bit_range(pixels: np.ndarray, levels: Levels | None) -> np.ndarray:
    """Bring deep pixels into 0..255 without rounding them; pixels of eight bits stay as they are.

    Args:
        pixels: (H, W, C) uint8, uint16, int32 or float32.
        levels: become 0 and 255, what lies beyond is cut off; None: all that the type can hold, 0
            and 1 for floats.

    Returns:
        (H, W, C), uint8 or float32.
    """
    if not is_deep(pixels):
        return pixels
    black, white = levels or _levels_of_type(pixels.dtype)
    return ((pixels.astype(np.float32) - black) * (255 / (white - black))).clip(0, 255)


def choose_levels(lowest: float, highest: float, *, whole: bool) -> Levels:
    """Return the levels of images whose values were seen to reach from `lowest` to `highest`.

    Whole numbers take the range of the fewest bits that hold them, 8 to 16 in twos, since cameras
    and scanners put 10 or 12 bits into 16; floats take 0..1 or 0..255 where they fit. Others take
    what was seen.
    """
    if lowest < 0:
        return (lowest, highest)
    if whole:
        fitting = [2.0**bits - 1 for bits in _BITS if highest <= 2**bits - 1]
        return (0.0, fitting[0] if fitting else highest)
    if highest <= 1:
        return (0.0, 1.0)
    return (0.0, 255.0) if highest <= 255 else (lowest, highest)


def check_deep(pixels: np.ndarray) -> np.ndarray:
    """Return pixels as uint8, uint16, int32 or float32, the types that are read.

    Raises:
        DataError: another type, or values that are no numbers.
    """
    kind = pixels.dtype.kind
    if kind == "b":
        return pixels.astype(np.uint8) * 255
    if kind == "f":
        if not np.isfinite(pixels).all():
            raise DataError("floats that are no finite numbers")
        return pixels.astype(np.float32, copy=False)
    if kind not in "iu":
        raise DataError(f"values of type {pixels.dtype}, wanted whole numbers or floats")
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    if pixels.size and not -(2**31) <= pixels.min() <= pixels.max() < 2**31:
        raise DataError(f"values from {pixels.min()} to {pixels.max()}, beyond 32 bits")
    return pixels.astype(np.int32, copy=False)


def _levels_of_type(dtype: np.dtype) -> Levels:
    if dtype == np.float32:
        return (0.0, 1.0)
    return (0.0, float(np.iinfo(dtype).max))
