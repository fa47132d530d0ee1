"""PatchCamelyon, pieces of microscopic sections of lymph nodes.

Source: https://github.com/basveeling/pcam; TensorFlow Datasets 4.4.0,
`image_classification/patch_camelyon.py`.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.datasets.published import DatasetFiles, File, Part, Published
from vitral.data.datasets.vtab import Task
from vitral.data.sources.archives import plain_path
from vitral.data.sources.arrays import numbered_names
from vitral.data.sources.store import Content, file_stamp
from vitral.errors import DataError
from vitral.files.optional import import_science

CLASSES = ("no tumor", "tumor")
"""By label: 1 where tumor lies in the 32x32 pixels of the centre (the publisher's readme)."""
SPLITS = {"train": "train", "validation": "valid", "test": "test"}
SIDE = 96


def file_name(split: str, content: str) -> str:
    """Return the name of the file of a publisher's split: `x`, its images, or `y`, its labels."""
    return f"camelyonpatch_level_2_split_{split}_{content}.h5.gz"


FILES = tuple(
    File(
        file_name(split, content),
        f"https://zenodo.org/record/2546921/files/{file_name(split, content)}",
        sha256,
        unpacked=file_name(split, content).removesuffix(".gz"),
    )
    for split, content, sha256 in (
        ("train", "x", "d619e741468a7ab35c7e4a75e6821b7e7e6c9411705d45708f2a0efc8960656c"),
        ("train", "y", "b74126d2c01b20d3661f9b46765d29cf4e4fba6faba29c8e0d09d406331ab75a"),
        ("valid", "x", "f82ee1670d027b4ec388048d9eabc2186b77c009655dae76d624c0ecb053ccb2"),
        ("valid", "y", "ce1ae30f08feb468447971cfd0472e7becd0ad96d877c64120c72571439ae48c"),
        ("test", "x", "79174c2201ad521602a5888be8f36ee10875f37403dd3f2086caf2182ef87245"),
        ("test", "y", "0a522005fccc8bbd04c5a117bfaf81d8da2676f03a29d7499f71d0a0bd6068ef"),
    )
)


def read_camelyon(place: DatasetFiles) -> Published:
    """Read the `.h5.gz` of images and labels of each split, or the `.h5` that they unpack to.

    Raises:
        DataError: a file is damaged, or images and labels do not fit each other.
        RequestError: h5py is not installed.
    """
    return Published(CLASSES, {split: _part(place, name) for split, name in SPLITS.items()})


def _part(place: DatasetFiles, split: str) -> Part:
    images_path, labels_path = (place.path(file_name(split, content)) for content in "xy")
    images = Hdf5Store(_plain(images_path), "x", where=str(images_path))
    labels = read_hdf5(_plain(labels_path), "y", where=str(labels_path)).reshape(-1)
    if images.shape != (len(labels), SIDE, SIDE, 3):
        raise DataError(
            f"{images_path} holds images {images.shape}, wanted ({len(labels)}, {SIDE}, {SIDE}, "
            f"3) by the labels of {labels_path}"
        )
    if not np.isin(labels, (0, 1)).all():
        raise DataError(f"{labels_path}: labels from {labels.min()} to {labels.max()}, not 0 and 1")
    return Part(
        images,
        [CLASSES[int(label)] for label in labels.tolist()],
        # The key begins with the file's word, "valid", though the split is called "validation".
        [f"{split}_{index}" for index in range(len(labels))],
    )


def _plain(path: Path) -> Path:
    return plain_path(path, suffix=".h5")


class Hdf5Store:
    """Images in an array (N, H, W, C) of an HDF5 file, which is opened at the first reading."""

    def __init__(self, path: Path, name: str, *, where: str) -> None:
        """Look at an array without reading its images.

        Args:
            path: the file.
            name: of the array in it.
            where: the file as the user knows it, for errors.

        Raises:
            DataError: it can't be read, or has no such array of bytes.
            RequestError: h5py is not installed.
        """
        self._path, self._name = path, name
        # The library reads one thing at a time, but not every build of it enforces that.
        self._lock = threading.Lock()
        self._array: Any = None
        with open_hdf5(path, where=where) as file:
            array = file.get(name)
            shape = getattr(array, "shape", None)
            dtype = getattr(array, "dtype", None)
            if shape is None or len(shape) != 4 or dtype != np.uint8:
                raise DataError(
                    f"{where} holds {name} of {dtype} {shape}, wanted uint8 (N, H, W, C)"
                )
        self.shape: tuple[int, ...] = shape
        self.names: Sequence[str] = numbered_names(shape[0])
        self._stamp = file_stamp(path)

    def read(self, number: int) -> Content:
        """Return an image's pixels."""
        with self._lock:
            if self._array is None:
                self._array = import_science("h5py").File(self._path, "r")[self._name]
            pixels: np.ndarray = self._array[number]
        return pixels

    def stamp(self, number: int) -> str | None:
        """Return the file's size and time of change, and the image's number."""
        return f"{self._stamp}-{number}"

    def blocks(self) -> np.ndarray | None:
        """Each image is read by itself."""
        return None


def read_hdf5(path: Path, name: str, *, where: str) -> np.ndarray:
    """Return a whole array of an HDF5 file.

    Args:
        path: the file.
        name: of the array in it.
        where: the file as the user knows it, for errors.

    Raises:
        DataError: it can't be read, or has no such array.
        RequestError: h5py is not installed.
    """
    with open_hdf5(path, where=where) as file:
        try:
            return np.asarray(file[name][()])
        except (KeyError, OSError, AttributeError, TypeError) as error:
            raise DataError(f"{where}: its array {name} can't be read: {error}") from None


def open_hdf5(path: Path, *, where: str) -> Any:
    """Open an HDF5 file for reading.

    Raises:
        DataError: it is none, or is damaged.
        RequestError: h5py is not installed.
    """
    try:
        return import_science("h5py").File(path, "r")
    except OSError as error:
        raise DataError(f"{where} can't be read as an HDF5 file: {error}") from None


TASKS = {
    "camelyon": Task(
        group="specialized",
        read=read_camelyon,
        files=FILES,
        num_classes=2,
        train=("train", 0, 100),
        validation=("validation", 0, 100),
        test=("test", 0, 100),
        num_test=32_768,
        tree=("patch_camelyon",),
        dataset="camelyon",
    ),
}
