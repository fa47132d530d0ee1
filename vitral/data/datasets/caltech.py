"""Caltech-101.

TensorFlow Datasets divides it by drawing from folders in the order in which the file system happens
to list them, which no archive states. So its division, VTAB's, can't be made again from the
publisher's file: another one is drawn here by the same rule, in an order that is stated.

Source: https://data.caltech.edu/records/mzrjq-6wc02; TensorFlow Datasets 4.4.0,
`image_classification/caltech.py`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from vitral.data.datasets.published import (
    DatasetFiles,
    File,
    Members,
    Part,
    Published,
    class_names,
)
from vitral.data.datasets.vtab import Task
from vitral.errors import DataError

ARCHIVE, FOLDER = "101_ObjectCategories.tar.gz", "101_ObjectCategories"
NUM_TRAIN_PER_CLASS, SEED = 30, 1234
NOTE = (
    f"{NUM_TRAIN_PER_CLASS} training images a class are drawn here: VTAB's own draw can't be made "
    "again, so scores compare only nearly with those of others"
)
FILES = (
    File(
        "101_ObjectCategories.tar.gz",
        "https://data.caltech.edu/records/mzrjq-6wc02 (within caltech-101.zip)",
        "af6ece2f339791ca20f855943d8b55dd60892c0a25105fcd631ee3d6430f9926",
        unpacked="101_ObjectCategories",
    ),
)


def read_caltech101(place: DatasetFiles) -> Published:
    """Read `101_ObjectCategories.tar.gz`, whose 102 folders are the classes, background too.

    Raises:
        DataError: a folder is missing, is one too many, or has too few images.
    """
    members = place.members(ARCHIVE)
    names_of = _names_by_folder(members)
    drawn = draw_train(names_of, where=members.where)
    rest = {folder: sorted(set(names) - set(drawn[folder])) for folder, names in names_of.items()}
    return Published(
        class_names("caltech101"),
        {"train": _part(members, drawn), "test": _part(members, rest)},
        notes=(NOTE,),
    )


def draw_train(names_of: Mapping[str, Sequence[str]], *, where: str) -> dict[str, list[str]]:
    """Draw the training images of each folder.

    By the rule of TensorFlow Datasets, 30 of each without replacement from one generator of seed
    1234; but of folders and of their .jpg files in the order of their names.

    Args:
        names_of: the .jpg files of each folder, in any order.
        where: they are, for errors.

    Raises:
        DataError: a folder has fewer than 30.
    """
    random = np.random.RandomState(SEED)
    drawn = {}
    for folder in sorted(names_of):
        names = sorted(names_of[folder])
        if len(names) < NUM_TRAIN_PER_CLASS:
            raise DataError(
                f"{where}: {folder} has {len(names)} images, wanted at least "
                f"{NUM_TRAIN_PER_CLASS}: it is not what the publisher distributes"
            )
        indices = random.choice(len(names), NUM_TRAIN_PER_CLASS, replace=False)
        drawn[folder] = [names[index] for index in indices.tolist()]
    return drawn


def _names_by_folder(members: Members) -> dict[str, list[str]]:
    """Return the .jpg files of each class's folder; the publisher has a few other files too."""
    names_of: dict[str, list[str]] = {}
    for name in members.store.names:
        top, _, rest = name.partition("/")
        folder, _, file_name = rest.partition("/")
        if top == FOLDER and file_name.endswith(".jpg") and "/" not in file_name:
            names_of.setdefault(folder, []).append(file_name)
    found, wanted = {folder.lower() for folder in names_of}, set(class_names("caltech101"))
    if found != wanted:
        raise DataError(
            f"{members.where} has not the {len(wanted)} folders that the publisher distributes: "
            f"missing are {_some(wanted - found)}; unknown are {_some(found - wanted)}"
        )
    return names_of


def _some(names: set[str]) -> str:
    first = ", ".join(sorted(names)[:3])
    return f"{first}, ... ({len(names)})" if len(names) > 3 else first or "none"


def _part(members: Members, names_of: Mapping[str, Sequence[str]]) -> Part:
    keys = [f"{folder}/{name}" for folder, names in names_of.items() for name in names]
    labels = [key.partition("/")[0].lower() for key in keys]
    return Part(members.select([f"{FOLDER}/{key}" for key in keys]), labels, keys)


TASKS = {
    "caltech101": Task(
        group="natural",
        read=read_caltech101,
        files=FILES,
        num_classes=102,
        train=("train", 0, 90),
        validation=("train", 90, 100),
        test=("test", 0, 100),
        num_test=6084,
        tree=("caltech101",),
        dataset="caltech101",
    ),
}
