"""Images that a caller gave, as examples."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.images import Examples
from vitral.data.stores.arrays import as_pixels
from vitral.data.stores.store import Content
from vitral.errors import DataError


def given_examples(images: Sequence[Any], *, channels: int) -> Examples:
    """Return images as examples of label 0, named by path, or by their place for arrays.

    Args:
        images: paths, arrays (H, W) or (H, W, C) uint8, or PIL images.
        channels: of the model.
    """
    count = len(images)
    store = _GivenImages(images, channels=channels)
    return Examples(store, np.arange(count), np.zeros(count, np.int64))


def given_names(images: Sequence[Any]) -> list[str]:
    """Return the paths of images, or for arrays their places."""
    return [
        os.fspath(image) if isinstance(image, str | os.PathLike) else str(number)
        for number, image in enumerate(images)
    ]


class _GivenImages:
    """Images that a caller gave, as a store."""

    def __init__(self, images: Sequence[Any], *, channels: int) -> None:
        self._images = images
        self._channels = channels
        self.names: Sequence[str] = given_names(images)

    def read(self, number: int) -> Content:
        """Return a file's bytes, or pixels."""
        image = self._images[number]
        if not isinstance(image, str | os.PathLike):
            return as_pixels(image, channels=self._channels)
        try:
            return Path(image).read_bytes()
        except FileNotFoundError:
            raise DataError("there is no such file") from None
        except OSError as error:
            raise DataError(f"can't be read: {error.strerror or error}") from None

    def stamp(self, number: int) -> str | None:
        """Nothing is cached."""
        return None

    def blocks(self) -> np.ndarray | None:
        """Each image is read by itself."""
        return None
