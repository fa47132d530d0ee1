"""dSprites: white shapes on black, in 737,280 images of every combination of six factors.

The publisher's `metadata` is a pickle, which would run code: it is never opened. Images are of 0
and 1, so one takes 512 bytes here; all of them as pixels of three channels would take 9 GB.

Source: https://github.com/google-deepmind/dsprites-dataset
"""

import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vitral.data.datasets.published import (
    DatasetFiles,
    File,
    Part,
    Published,
    keys_of_numbers,
)
from vitral.data.datasets.vtab import Task
from vitral.data.sources.arrays import TiledStore
from vitral.data.sources.store import Content
from vitral.errors import DataError

SPRITES = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
_SIDE = 64
_IMAGES_AT_ONCE = 4096
_FACTORS = 6  # colour, shape, scale, orientation, x, y
_ORIENTATION, _X = 3, 4
_NUM_ORIENTATIONS, _NUM_X = 40, 32
_NUM_CLASSES = 16
_DAMAGE = (OSError, EOFError, ValueError, KeyError, NotImplementedError, zipfile.BadZipFile,
           zlib.error)  # fmt: skip
FILES = (File(SPRITES, "https://github.com/google-deepmind/dsprites-dataset"),)


def location_classes(positions: np.ndarray) -> np.ndarray:
    """Return the classes (N,) 0..15 of positions 0..31 from left to right: floor(x / 2).

    Source: google-research/task_adaptation, `data/dsprites.py`.
    """
    return _grouped(positions, _NUM_X)


def orientation_classes(orientations: np.ndarray) -> np.ndarray:
    """Return the classes (N,) 0..15 of orientations 0..39, by turns 3 and 2: floor(o / 2.5).

    Source: google-research/task_adaptation, `data/dsprites.py`.
    """
    return _grouped(orientations, _NUM_ORIENTATIONS)


def _grouped(values: np.ndarray, count: int) -> np.ndarray:
    return (values.astype(np.float32) // np.float32(count / _NUM_CLASSES)).astype(np.int64)


def _names(factor: str, count: int) -> tuple[str, ...]:
    """Return the classes' names by the values of each, such as `x 0 to 1`."""
    values = np.arange(count)
    groups = [values[_grouped(values, count) == label] for label in range(_NUM_CLASSES)]
    return tuple(f"{factor} {group[0]} to {group[-1]}" for group in groups)


LOCATIONS = _names("x", _NUM_X)
ORIENTATIONS = _names("orientation", _NUM_ORIENTATIONS)


def read_dsprites_location(place: DatasetFiles) -> Published:
    """Read the images with the shape's position from left to right."""
    return _read(place, LOCATIONS, location_classes, column=_X, count=_NUM_X)


def read_dsprites_orientation(place: DatasetFiles) -> Published:
    """Read the images with the shape's orientation."""
    return _read(
        place, ORIENTATIONS, orientation_classes, column=_ORIENTATION, count=_NUM_ORIENTATIONS
    )


def _read(
    place: DatasetFiles,
    classes: tuple[str, ...],
    rule: Callable[[np.ndarray], np.ndarray],
    *,
    column: int,
    count: int,
) -> Published:
    path = place.path(SPRITES)
    try:
        values = _read_latents(path)[:, column]
        bits = _read_images(path, len(values))
    except _DAMAGE as error:
        raise DataError(f"{path} can't be read: {error}; download it again") from None
    if len(values) and not 0 <= values.min() <= values.max() < count:
        raise DataError(
            f"{path}: latents_classes from {values.min()} to {values.max()} in column {column}, "
            f"wanted 0 to {count - 1}: it is not what the publisher distributes"
        )
    keys = keys_of_numbers(len(values))
    labels = [classes[label] for label in rule(values).tolist()]
    return Published(classes, {"train": Part(TiledStore(_BitStore(bits, keys)), labels, keys)})


def _read_latents(path: Path) -> np.ndarray:
    """Return the numbers (N, 6) of each image's factors."""
    with path.open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise DataError(f"{path} holds one array, wanted an .npz of several: download it again")
        latents: np.ndarray = arrays["latents_classes"]
    if latents.ndim != 2 or latents.shape[1] != _FACTORS or latents.dtype.kind not in "iu":
        raise DataError(
            f"{path}: latents_classes are {latents.dtype} of shape {latents.shape}, wanted whole "
            "numbers (N, 6): it is not what the publisher distributes"
        )
    return latents


def _read_images(path: Path, count: int) -> np.ndarray:
    """Return the images as bits (N, 512) uint8; some are held as bytes at once."""
    bits = np.empty((count, _SIDE * _SIDE // 8), np.uint8)
    wanted = (count, _SIDE, _SIDE)
    with zipfile.ZipFile(path) as archive, archive.open("imgs.npy") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("imgs are of another version of .npy than 1.0")
        shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
        if shape != wanted or in_columns or dtype != np.uint8:
            raise DataError(
                f"{path}: imgs are {dtype} of shape {shape}, wanted uint8 {wanted} row by row, one "
                "for each of latents_classes: it is not what the publisher distributes"
            )
        for first in range(0, count, _IMAGES_AT_ONCE):
            block = bits[first : first + _IMAGES_AT_ONCE]
            block[:] = _packed(path, file.read(len(block) * _SIDE * _SIDE), len(block))
        if file.read(1):  # the zip's checksum is compared at the end
            raise ValueError("imgs go on after their last image")
    return bits


def _packed(path: Path, content: bytes, count: int) -> np.ndarray:
    pixels = np.frombuffer(content, np.uint8)
    if len(pixels) < count * _SIDE * _SIDE:
        raise EOFError("imgs are cut short")
    if pixels.max() > 1:
        raise DataError(
            f"{path}: imgs have a value of {pixels.max()}, wanted 0 and 1: it is not what the "
            "publisher distributes"
        )
    return np.packbits(pixels.reshape(count, -1), axis=1)


class _BitStore:
    """Images of a bit a pixel, read as (64, 64, 1) of 0 and 255."""

    def __init__(self, bits: np.ndarray, names: Sequence[str]) -> None:
        self._bits = bits
        self.names = names

    def read(self, number: int) -> Content:
        """Return an image's pixels."""
        return np.unpackbits(self._bits[number]).reshape(_SIDE, _SIDE, 1) * np.uint8(255)

    def stamp(self, number: int) -> str | None:
        """Arrays are not cached."""
        return None

    def blocks(self) -> np.ndarray | None:
        """Each image is read by itself."""
        return None


TASKS = {
    "dsprites-loc": Task(
        group="structured",
        read=read_dsprites_location,
        files=FILES,
        num_classes=16,
        train=("train", 0, 80),
        validation=("train", 80, 90),
        test=("train", 90, 100),
        num_test=73_728,
        tree=("dsprites_loc",),
        dataset="dsprites",
        flip=False,
        crop=False,
    ),
    "dsprites-ori": Task(
        group="structured",
        read=read_dsprites_orientation,
        files=FILES,
        num_classes=16,
        train=("train", 0, 80),
        validation=("train", 80, 90),
        test=("train", 90, 100),
        num_test=73_728,
        tree=("dsprites_ori",),
        dataset="dsprites",
        flip=False,
    ),
}
