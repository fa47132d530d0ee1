"""Images in one array of an HDF5 file, read one by one."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.stores.arrays import numbered_names
from vitral.data.stores.folder import file_stamp
from vitral.data.stores.store import Content
from vitral.errors import DataError
from vitral.files.science import import_science


class Hdf5Store:
    """Images in an array (N, H, W, C) of an HDF5 file, which is opened at the first reading."""

    def __init__(self, path: Path, name: str, *, where: str) -> None:
        """Look at an array without reading its images.

        Args:
            path: the file.
            name: of the array in it.
            where: the file as a person knows it, for errors.

        Raises:
            DataError: it can't be read, or has no such array of bytes.
            RequestError: h5py is not installed.
        """
        self._path, self._name = path, name
        # The library reads one thing at a time, and is not told so by every build of it.
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
        where: the file as a person knows it, for errors.

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
