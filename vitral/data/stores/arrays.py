"""Images in memory: an array of all, or an object that gives one after the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from vitral.data.decode import as_shown, to_channels
from vitral.data.levels import check_deep
from vitral.data.stores.store import Content, Store
from vitral.errors import DataError


class ArrayStore:
    """Images in one array (N, H, W) or (N, H, W, C), of eight bits or more."""

    def __init__(self, images: np.ndarray, *, path: str) -> None:
        if images.ndim not in (3, 4):
            raise DataError(
                f"{path}: images of shape {images.shape}, wanted (N, H, W) or (N, H, W, C)"
            )
        try:
            images = check_deep(images)
        except DataError as error:
            raise DataError(f"{path}: images of {error}") from None
        if images.ndim == 4 and images.shape[1] in (1, 3, 4) and images.shape[3] > 4:
            raise DataError(
                f"{path}: images of shape {images.shape} look like (N, C, H, W), wanted "
                "(N, H, W, C): transpose them with images.transpose(0, 2, 3, 1)"
            )
        self._images = images[..., None] if images.ndim == 3 else images
        self.names: Sequence[str] = numbered_names(len(images))

    def read(self, number: int) -> Content:
        """Return an image's pixels."""
        pixels: np.ndarray = self._images[number]
        return pixels

    def stamp(self, number: int) -> str | None:
        """Arrays are not cached."""
        return None

    def blocks(self) -> np.ndarray | None:
        """Each image is read by itself."""
        return None


class TiledStore:
    """Grey images of another store as three equal channels, made when an image is read."""

    def __init__(self, store: Store) -> None:
        """Tile `store`, whose content is pixels (H, W, 1)."""
        self._store = store
        self.names = store.names

    def read(self, number: int) -> Content:
        """Return an image's pixels (H, W, 3)."""
        pixels = self._store.read(number)
        assert isinstance(pixels, np.ndarray)
        return np.repeat(pixels, 3, axis=2)

    def stamp(self, number: int) -> str | None:
        """Return what changes when the content does."""
        return self._store.stamp(number)

    def blocks(self) -> np.ndarray | None:
        """Return which files are read together; None: each by itself."""
        return self._store.blocks()


class ObjectStore:
    """Any sized object with [i] -> (image, label) or an image, such as a torch data set."""

    def __init__(self, examples: Any) -> None:
        self._examples = examples
        self.names: Sequence[str] = numbered_names(len(examples))

    def read(self, number: int) -> Content:
        """Return an image's pixels."""
        example = self._examples[number]
        return as_pixels(example[0] if isinstance(example, tuple | list) else example)

    def stamp(self, number: int) -> str | None:
        """Objects are not cached."""
        return None

    def blocks(self) -> np.ndarray | None:
        """Each image is read by itself."""
        return None


def as_pixels(image: Any, *, channels: int | None = None) -> np.ndarray:
    """Return any usual form of an image as pixels (H, W, C), uint8 or of more bits.

    Args:
        image: a PIL image; an array (H, W) or (H, W, C) of whole numbers; a tensor (C, H, W); of
            either also floats in 0..1.
        channels: of the model: a PIL image with transparency is put on white for 1 or 3.

    Raises:
        DataError: another type, or floats outside 0..1.
    """
    if hasattr(image, "permute"):  # a tensor; torch is not imported for arrays and files
        image = image.detach().cpu()
        array = image.permute(1, 2, 0).numpy() if image.ndim == 3 else image.numpy()
    elif isinstance(image, Image.Image):
        shown = as_shown(image)
        if channels in (1, 3) and shown.mode in ("LA", "RGBA"):
            return to_channels(shown, channels)
        array = np.asarray(shown)
    else:
        array = np.asarray(image)
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            raise DataError(
                f"an image of floats from {array.min():.3g} to {array.max():.3g}: give uint8, or "
                "floats in 0..1 before any normalisation"
            )
        array = np.rint(array * 255).astype(np.uint8)
    if array.ndim not in (2, 3):
        raise DataError(f"an image of shape {array.shape}: give (H, W) or (H, W, C)")
    array = check_deep(array)
    return array[:, :, None] if array.ndim == 2 else array


def numbered_names(count: int) -> Sequence[str]:
    """Return the names `0`, `1`, ... of images that have none."""
    return _Numbered(count)


class _Numbered(Sequence[str]):
    """The names `0`, `1`, ... without a list of them."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [str(n) for n in range(*number.indices(self._length))]
        if not 0 <= number < self._length:
            raise IndexError(number)
        return str(number)
