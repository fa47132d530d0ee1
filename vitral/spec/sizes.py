"""Sizes of images and patches in pixels."""

from numbers import Integral

from vitral.errors import RequestError

Size = int | tuple[int, int]
"""The side of a square, or (height, width)."""


def as_pair(size: Size, *, name: str) -> tuple[int, int]:
    """Return (height, width).

    Raises:
        RequestError: neither a number of pixels nor two.
    """
    pair = tuple(size) if isinstance(size, tuple | list) else (size, size)
    whole = [isinstance(side, Integral) and not isinstance(side, bool) for side in pair]
    if len(pair) != 2 or not all(whole) or not all(side > 0 for side in pair):
        raise RequestError(f"{name}={size}: give a number of pixels, or (height, width)")
    return (int(pair[0]), int(pair[1]))


def show_size(size: tuple[int, ...]) -> str:
    """Write `224 x 320`."""
    return f"{size[0]} x {size[1]}"
