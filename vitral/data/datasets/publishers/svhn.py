"""SVHN, its cropped digits.

Source: http://ufldl.stanford.edu/housenumbers/
"""

import numpy as np

from vitral.data.datasets.published import Part, Place, Published, keys_of_numbers
from vitral.data.stores.arrays import ArrayStore
from vitral.errors import DataError
from vitral.files.science import read_mat

CLASSES = tuple("0123456789")


def read_svhn(place: Place) -> Published:
    """Read `train_32x32.mat` and `test_32x32.mat`, in which 10 stands for the digit 0."""
    return Published(CLASSES, {split: _part(place, split) for split in ("train", "test")})


def _part(place: Place, split: str) -> Part:
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
