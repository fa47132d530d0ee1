"""PatchCamelyon, pieces of microscopic sections of lymph nodes.

Source: https://github.com/basveeling/pcam; TensorFlow Datasets 4.4.0,
`image_classification/patch_camelyon.py`.
"""

from pathlib import Path

import numpy as np

from vitral.data.datasets.published import Part, Place, Published
from vitral.data.stores.gzipped import plain_path
from vitral.data.stores.hdf5 import Hdf5Store, read_hdf5
from vitral.errors import DataError

CLASSES = ("no tumor", "tumor")
"""By label: 1 where tumor lies in the 32x32 pixels of the centre (the publisher's readme)."""
SPLITS = {"train": "train", "validation": "valid", "test": "test"}
SIDE = 96


def file_name(split: str, content: str) -> str:
    """Return the name of the file of a publisher's split: `x`, its images, or `y`, its labels."""
    return f"camelyonpatch_level_2_split_{split}_{content}.h5.gz"


def read_camelyon(place: Place) -> Published:
    """Read the `.h5.gz` of images and labels of each split, or the `.h5` that they unpack to.

    Raises:
        DataError: a file is damaged, or images and labels do not fit each other.
        RequestError: h5py is not installed.
    """
    return Published(CLASSES, {split: _part(place, own) for split, own in SPLITS.items()})


def _part(place: Place, split: str) -> Part:
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
        [f"{split}_{number}" for number in range(len(labels))],
    )


def _plain(path: Path) -> Path:
    return plain_path(path, suffix=".h5")
