"""CLEVR: rendered scenes of 3 to 10 objects, whose number and nearness are two of VTAB's tasks.

The publisher's test scenes are not public, so its validation images are VTAB's test.

Source: https://cs.stanford.edu/people/jcjohns/clevr/
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vitral.data.datasets.published import DatasetFiles, File, Members, Part, Published
from vitral.data.datasets.vtab import Task
from vitral.errors import DataError

ARCHIVE, FOLDER = "CLEVR_v1.0.zip", "CLEVR_v1.0"
_SPLITS = {"train": "train", "validation": "val"}
_MIN_OBJECTS, _MAX_OBJECTS = 3, 10
_THRESHOLDS = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
COUNTS = tuple(f"{number} objects" for number in range(_MIN_OBJECTS, _MAX_OBJECTS + 1))
DISTANCES = (
    "nearest up to 8", "nearest 8 to 8.5", "nearest 8.5 to 9", "nearest 9 to 9.5",
    "nearest 9.5 to 10", "nearest over 10",
)  # fmt: skip
_USED_KEYS = ("scenes", "image_filename", "objects", "pixel_coords")
FILES = (
    File(
        "CLEVR_v1.0.zip",
        "https://dl.fbaipublicfiles.com/clevr/CLEVR_v1.0.zip",
        "5cd61cf1096ed20944df93c9adb31e74d189b8459a94f54ba00090e5c59936d1",
        unpacked="CLEVR_v1.0",
    ),
)


def read_clevr_count(place: DatasetFiles) -> Published:
    """Read the images with the number of their objects."""
    return _read(place, COUNTS, count_class)


def read_clevr_distance(place: DatasetFiles) -> Published:
    """Read the images with the distance of the object that is nearest to the camera."""
    return _read(place, DISTANCES, distance_class)


def count_class(depths: Sequence[float]) -> int:
    """Return the class, 0..7 for 3..10 objects, of a scene by its objects' distances.

    Source: google-research/task_adaptation, `data/clevr.py`, `count_all`.
    """
    return len(depths) - _MIN_OBJECTS


def distance_class(depths: Sequence[float]) -> int:
    """Return the class 0..5 of a scene by its objects' distances from the camera.

    It is the number of the last of the thresholds 0, 8, 8.5, 9, 9.5, 10 that the least distance is
    above; one at a threshold is of the class below. -1 and 6, for distances up to 0 and above 100,
    are no classes.

    Source: google-research/task_adaptation, `data/clevr.py`, `closest_object_distance`; distances
    are float32 in TensorFlow Datasets.
    """
    nearest = np.asarray(depths, np.float32).min(initial=np.inf)
    return int((np.array(_THRESHOLDS) < nearest).sum()) - 1


def _read(
    place: DatasetFiles, classes: tuple[str, ...], rule: Callable[[Sequence[float]], int]
) -> Published:
    members = place.members(ARCHIVE)
    return Published(
        classes,
        {split: _part(members, part, classes, rule) for split, part in _SPLITS.items()},
    )


def _part(
    members: Members,
    split: str,
    classes: tuple[str, ...],
    rule: Callable[[Sequence[float]], int],
) -> Part:
    scenes = _read_scenes(members, split)
    names, labels = sorted(scenes), []
    for name in names:
        label = rule(scenes[name])
        if not 0 <= label < len(classes):
            raise DataError(
                f"{members.where}: {name} has objects at distances {scenes[name]}, which is of "
                f"none of the {len(classes)} classes from {classes[0]!r} to {classes[-1]!r}"
            )
        labels.append(classes[label])
    return Part(
        members.select([f"{FOLDER}/images/{split}/{name}" for name in names]), labels, names
    )


def _read_scenes(members: Members, split: str) -> dict[str, list[float]]:
    """Return, by image, the distance of each object from the camera."""
    name = f"{FOLDER}/scenes/CLEVR_{split}_scenes.json"
    try:
        scenes = json.loads(members.read(name), object_hook=_keep)["scenes"]
        return {
            str(scene["image_filename"]): [
                float(item["pixel_coords"][2]) for item in scene["objects"]
            ]
            for scene in scenes
        }
    except (LookupError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{members.where}: {name} states no scenes of images and objects ({error!r}): it is "
            "not what the publisher distributes"
        ) from None


def _keep(record: dict[str, Any]) -> dict[str, Any]:
    """Drop, while the file is parsed, the keys that would take gigabytes."""
    return {key: record[key] for key in _USED_KEYS if key in record}


TASKS = {
    "clevr-count": Task(
        group="structured",
        read=read_clevr_count,
        files=FILES,
        num_classes=8,
        train=("train", 0, 90),
        validation=("train", 90, 100),
        test=("validation", 0, 100),
        num_test=15_000,
        tree=("clevr_count",),
        dataset="clevr",
        crop=False,
    ),
    "clevr-dist": Task(
        group="structured",
        read=read_clevr_distance,
        files=FILES,
        num_classes=6,
        train=("train", 0, 90),
        validation=("train", 90, 100),
        test=("validation", 0, 100),
        num_test=15_000,
        tree=("clevr_dist",),
        dataset="clevr",
        crop=False,
    ),
}
