"""SVHN, its cropped digits.

Source: http://ufldl.stanford.edu/housenumbers/
"""

import numpy as np

from vitral.data.datasets.published import (
    DatasetFiles,
    File,
    Part,
    Published,
    keys_of_numbers,
)
from vitral.data.datasets.vtab import Task
from vitral.data.sources.arrays import ArrayStore
from vitral.errors import DataError
from vitral.files.optional import read_mat

CLASSES = tuple("0123456789")
_SVHN = "http://ufldl.stanford.edu/housenumbers"
FILES = (
    File(
        "train_32x32.mat",
        f"{_SVHN}/train_32x32.mat",
        "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    ),
    File(
        "test_32x32.mat",
        f"{_SVHN}/test_32x32.mat",
        "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    ),
)


def read_svhn(place: DatasetFiles) -> Published:
    """Read `train_32x32.mat` and `test_32x32.mat`, in which 10 stands for the digit 0."""
    return Published(CLASSES, {split: _part(place, split) for split in ("train", "test")})


def _part(place: DatasetFiles, split: str) -> Part:
    path = place.path(f"{split}_32x32.mat")
    variables = read_mat(path.read_bytes(), where=str(path))
    images, labels = variables.get("X"), variables.get("y")
    if images is None or labels is None or images.shape != (32, 32, 3, np.size(labels)):
        raise DataError(f"{path} does not hold images X (32, 32, 3, N) and labels y")
    if not ((labels >= 1) & (labels <= 10)).all():
        raise DataError(f"{path}: labels from {labels.min()} to {labels.max()}, not 1 to 10")
    return Part(
        ArrayStore(images.transpose(3, 0, 1, 2), path=str(path)),
        [CLASSES[label % 10] for label in labels.tolist()],
        keys_of_numbers(len(labels)),
    )


TASKS = {
    "svhn": Task(
        group="natural",
        read=read_svhn,
        files=FILES,
        num_classes=10,
        train=("train", 0, 90),
        validation=("train", 90, 100),
        test=("test", 0, 100),
        num_test=26_032,
        tree=("svhn",),
        dataset="svhn",
    ),
}
