"""What examples have beside a class: numbers, or a map of whole numbers for each image."""

import hashlib
from typing import Any, Protocol

import numpy as np

from vitral.errors import DataError


class Targets(Protocol):
    """Targets of one kind, by the number of the file that they belong to."""

    def read(self, number: int) -> np.ndarray:
        """Return a file's target: (values,) float32, or a map (H, W) uint8. Raises DataError."""
        ...

    def digest(self, number: int) -> str:
        """Return a hash of it."""
        ...


class ObjectTargets:
    """The second of the two that an object gives for [i] -> (image, target)."""

    def __init__(self, examples: Any, kind: str) -> None:
        """Take an object.

        Args:
            examples: sized, with [i].
            kind: of `data.needs.TARGETS`.
        """
        self._examples, self._as_kind = examples, {"value": as_values, "mask": as_mask}[kind]

    def read(self, number: int) -> np.ndarray:
        """Return a file's target."""
        return self._as_kind(self._examples[number][1], number=number)

    def digest(self, number: int) -> str:
        """Return a hash of it."""
        return hashlib.sha256(np.ascontiguousarray(self.read(number)).tobytes()).hexdigest()


def as_values(target: Any, *, number: int) -> np.ndarray:
    """Return a number, or several in a row, as (values,) float32.

    Raises:
        DataError: it is none, or not finite.
    """
    try:
        values = np.atleast_1d(np.asarray(target, np.float32))
    except (TypeError, ValueError):
        values = np.zeros((0, 0), np.float32)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise DataError(
            f"target {target!r} of example {number}: give a finite number, or several in a row"
        )
    return values


def as_mask(target: Any, *, number: int) -> np.ndarray:
    """Return a map of whole numbers in 0..255 as (H, W) uint8.

    Raises:
        DataError: it is none.
    """
    mask = np.asarray(target)
    if mask.ndim != 2 or mask.dtype.kind not in "iub" or not mask.size:
        raise DataError(
            f"the mask of example {number} is of type {mask.dtype} and shape {mask.shape}: give "
            "(H, W) of whole numbers"
        )
    if mask.min() < 0 or mask.max() > 255:
        raise DataError(
            f"the mask of example {number} has values from {mask.min()} to {mask.max()}: give "
            "0..255, of which 255 counts for nothing"
        )
    return mask.astype(np.uint8)
