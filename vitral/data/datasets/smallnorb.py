"""SmallNORB: toys seen from 9 elevations and 18 azimuths, in the publisher's own binary format.

The files end in .mat, but are not MATLAB's: a magic number for the type, the number of dimensions,
at least three dimensions, all int32, then the values. Images are those of the first camera.

Source: https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/; TensorFlow Datasets, `smallnorb`.
"""

import contextlib
import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vitral.data.datasets.published import (
    DatasetFiles,
    File,
    Part,
    Published,
    keys_of_numbers,
)
from vitral.data.datasets.vtab import Task
from vitral.data.sources.arrays import ArrayStore, TiledStore
from vitral.errors import DataError

FILES = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training-{}.mat.gz",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing-{}.mat.gz",
}
AZIMUTHS = tuple(f"azimuth {20 * number}" for number in range(18))
ELEVATIONS = tuple(f"elevation {30 + 5 * number}" for number in range(9))
_UINT8, _INT32 = 0x1E3D4C55, 0x1E3D4C54
_PAIR = (2, 96, 96)
_PAIR_BYTES = 2 * 96 * 96
_PAIRS_AT_ONCE = 256
_INFO_COLUMNS = 4  # instance, elevation, azimuth, lighting
_GZIP_MAGIC = b"\x1f\x8b"
_AGAIN = "download it again"
_Opened = BinaryIO | gzip.GzipFile
_NORB = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small"
SMALLNORB_FILES = (
    File(
        "smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat.gz",
        f"{_NORB}/smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat.gz",
        "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873",
        unpacked="smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat",
    ),
    File(
        "smallnorb-5x46789x9x18x6x2x96x96-training-info.mat.gz",
        f"{_NORB}/smallnorb-5x46789x9x18x6x2x96x96-training-info.mat.gz",
        "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32",
        unpacked="smallnorb-5x46789x9x18x6x2x96x96-training-info.mat",
    ),
    File(
        "smallnorb-5x01235x9x18x6x2x96x96-testing-dat.mat.gz",
        f"{_NORB}/smallnorb-5x01235x9x18x6x2x96x96-testing-dat.mat.gz",
        "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474",
        unpacked="smallnorb-5x01235x9x18x6x2x96x96-testing-dat.mat",
    ),
    File(
        "smallnorb-5x01235x9x18x6x2x96x96-testing-info.mat.gz",
        f"{_NORB}/smallnorb-5x01235x9x18x6x2x96x96-testing-info.mat.gz",
        "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2",
        unpacked="smallnorb-5x01235x9x18x6x2x96x96-testing-info.mat",
    ),
)


def read_smallnorb_azimuth(place: DatasetFiles) -> Published:
    """Read the images with the direction from which each was taken, in steps of 20 degrees."""
    return _read(place, AZIMUTHS, azimuth_classes)


def read_smallnorb_elevation(place: DatasetFiles) -> Published:
    """Read the images with the height from which each was taken, in steps of 5 degrees."""
    return _read(place, ELEVATIONS, elevation_classes)


def azimuth_classes(info: np.ndarray) -> np.ndarray:
    """Return the classes (N,) 0..17 of rows (N, 4) of the publisher, or -1 where there is none.

    Source: google-research/task_adaptation, `data/smallnorb.py`, after TensorFlow Datasets halves
    the publisher's 0, 2, ..., 34.
    """
    azimuth = info[:, 2]
    known = (azimuth >= 0) & (azimuth < 2 * len(AZIMUTHS)) & (azimuth % 2 == 0)
    return np.where(known, azimuth // 2, -1)


def elevation_classes(info: np.ndarray) -> np.ndarray:
    """Return the classes (N,) 0..8 of rows (N, 4) of the publisher, or -1 where there is none.

    Source: google-research/task_adaptation, `data/smallnorb.py`.
    """
    elevation = info[:, 1]
    return np.where((elevation >= 0) & (elevation < len(ELEVATIONS)), elevation, -1)


def _read(
    place: DatasetFiles, classes: tuple[str, ...], rule: Callable[[np.ndarray], np.ndarray]
) -> Published:
    parts = {}
    for split, pattern in FILES.items():
        info_path, images_path = (place.path(pattern.format(kind)) for kind in ("info", "dat"))
        info = _read_info(info_path)
        labels = rule(info)
        if (labels < 0).any():
            raise DataError(
                f"{info_path}: row {info[labels < 0][0].tolist()} is of none of the "
                f"{len(classes)} classes from {classes[0]} to {classes[-1]}: {_AGAIN}"
            )
        images = _read_first_camera(images_path, len(info))
        parts[split] = Part(
            TiledStore(ArrayStore(images, path=str(images_path))),
            [classes[label] for label in labels.tolist()],
            keys_of_numbers(len(labels)),
        )
    return Published(classes, parts)


def _read_info(path: Path) -> np.ndarray:
    """Return the rows (N, 4) of instance, elevation, azimuth and lighting."""
    with _opened(path) as file:
        shape = _read_shape(file, path, magic=_INT32, num_dims=2)
        content = file.read()
    if shape[0] < 0 or shape[1] != _INFO_COLUMNS:
        raise DataError(f"{path} holds numbers of shape {shape}, wanted (N, 4): {_AGAIN}")
    _check_size(path, len(content), 4 * shape[0] * shape[1])
    return np.frombuffer(content, "<i4").reshape(shape)


def _read_first_camera(path: Path, count: int) -> np.ndarray:
    """Return the images (N, 96, 96) of the first of two cameras; a few pairs are held at once."""
    images = np.empty((count, *_PAIR[1:]), np.uint8)
    with _opened(path) as file:
        shape = _read_shape(file, path, magic=_UINT8, num_dims=4)
        if shape != (count, *_PAIR):
            raise DataError(f"{path} holds images of shape {shape}, wanted {(count, *_PAIR)}")
        for first in range(0, count, _PAIRS_AT_ONCE):
            block = images[first : first + _PAIRS_AT_ONCE]
            content = file.read(len(block) * _PAIR_BYTES)
            _check_size(
                path, first * _PAIR_BYTES + len(content), (first + len(block)) * _PAIR_BYTES
            )
            block[:] = np.frombuffer(content, np.uint8).reshape(-1, *_PAIR)[:, 0]
        _check_size(path, count * _PAIR_BYTES + len(file.read(1)), count * _PAIR_BYTES)
    return images


def _read_shape(file: _Opened, path: Path, *, magic: int, num_dims: int) -> tuple[int, ...]:
    """Read up to the values; return the dimensions, of which at least three are stored."""
    size = 4 * (2 + max(3, num_dims))
    content = file.read(size)
    _check_size(path, len(content), size)
    found, dims, *shape = np.frombuffer(content, "<i4").tolist()
    if found != magic:
        raise DataError(
            f"{path} begins with {found & 0xFFFFFFFF:#x}, wanted {magic:#x}: it is no file of "
            f"NORB's of that kind; {_AGAIN}"
        )
    if dims != num_dims:
        raise DataError(f"{path} holds an array of {dims} dimensions, wanted {num_dims}: {_AGAIN}")
    return tuple(shape[:num_dims])


def _check_size(path: Path, found: int, wanted: int) -> None:
    if found < wanted:
        raise DataError(f"{path} is cut short: {found:,} of {wanted:,} bytes; {_AGAIN}")
    if found > wanted:
        raise DataError(f"{path} goes on after its {wanted:,} bytes of values: {_AGAIN}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Opened]:
    """Open a file, compressed or not; what can't be read in it is a DataError."""
    try:
        with path.open("rb") as file:
            packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            file.seek(0)
            if packed:
                with gzip.open(file) as plain:
                    yield plain
            else:
                yield file
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read: {error}; {_AGAIN}") from None


TASKS = {
    "smallnorb-azim": Task(
        group="structured",
        read=read_smallnorb_azimuth,
        files=SMALLNORB_FILES,
        num_classes=18,
        train=("train", 0, 100),
        validation=("test", 0, 50),
        test=("test", 50, 100),
        num_test=12_150,
        tree=("smallnorb_azi",),
        dataset="smallnorb",
        flip=False,
    ),
    "smallnorb-elev": Task(
        group="structured",
        read=read_smallnorb_elevation,
        files=SMALLNORB_FILES,
        num_classes=9,
        train=("train", 0, 100),
        validation=("test", 0, 50),
        test=("test", 50, 100),
        num_test=12_150,
        tree=("smallnorb_ele",),
        dataset="smallnorb",
    ),
}
