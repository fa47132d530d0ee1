"""Oxford Flowers-102.

Source: https://www.robots.ox.ac.uk/~vgg/data/flowers/102/
"""

import numpy as np

from vitral.data.datasets.published import (
    DatasetFiles,
    File,
    NamedDataset,
    Part,
    Published,
    class_names,
)
from vitral.data.datasets.vtab import Task
from vitral.errors import DataError
from vitral.files.optional import read_mat

_SPLITS = {"train": "trnid", "validation": "valid", "test": "tstid"}
_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
FILES = (
    File(
        "102flowers.tgz",
        f"{_VGG}/flowers/102/102flowers.tgz",
        "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
        unpacked="jpg",
    ),
    File(
        "imagelabels.mat",
        f"{_VGG}/flowers/102/imagelabels.mat",
        "4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
    ),
    File(
        "setid.mat",
        f"{_VGG}/flowers/102/setid.mat",
        "46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
    ),
)


def read_flowers102(place: DatasetFiles) -> Published:
    """Read `102flowers.tgz` by `imagelabels.mat` and `setid.mat`, which count from 1."""
    images, classes = place.members("102flowers.tgz"), class_names("flowers102")
    labels_path, sets_path = place.path("imagelabels.mat"), place.path("setid.mat")
    variables = read_mat(labels_path.read_bytes(), where=str(labels_path))
    labels = np.atleast_1d(variables.get("labels", ()))
    sets = read_mat(sets_path.read_bytes(), where=str(sets_path))
    if not len(labels) or not 1 <= labels.min() <= labels.max() <= len(classes):
        raise DataError(f"{labels_path} does not hold labels from 1 to {len(classes)}")
    parts = {}
    for split, variable in _SPLITS.items():
        numbers = np.atleast_1d(sets.get(variable, ()))
        if not len(numbers) or not 1 <= numbers.min() <= numbers.max() <= len(labels):
            raise DataError(f"{sets_path} does not hold {variable}, images 1 to {len(labels)}")
        names = [f"image_{number:05}.jpg" for number in numbers.tolist()]
        parts[split] = Part(
            images.select([f"jpg/{name}" for name in names]),
            [classes[label - 1] for label in labels[numbers.astype(int) - 1].tolist()],
            names,
        )
    return Published(classes, parts)


DATASETS = {
    "flowers102": NamedDataset(
        title="Oxford Flowers-102",
        files=FILES,
        read=read_flowers102,
        num_classes=102,
        counts={"train": 1020, "validation": 1020, "test": 6149},
        source=f"{_VGG}/flowers/102/",
        licence="not stated",
        splits={"train": "train", "validation": "validation", "test": "test"},
    ),
}
TASKS = {
    "flowers102": Task(
        group="natural",
        read=read_flowers102,
        files=FILES,
        num_classes=102,
        train=("train", 0, 100),
        validation=("validation", 0, 100),
        test=("test", 0, 100),
        num_test=6149,
        tree=("oxford_flowers102", "flowers102"),
        dataset="flowers102",
    ),
}
