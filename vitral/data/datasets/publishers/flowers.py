"""Oxford Flowers-102.

Source: https://www.robots.ox.ac.uk/~vgg/data/flowers/102/
"""

import numpy as np

from vitral.data.datasets.class_names import class_names
from vitral.data.datasets.published import Part, Place, Published
from vitral.errors import DataError
from vitral.files.science import read_mat

_SPLITS = {"train": "trnid", "validation": "valid", "test": "tstid"}


def read_flowers102(place: Place) -> Published:
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
