"""KITTI's object detection, for VTAB's task: the distance of the nearest vehicle.

The publisher's test images have no labels, so those of training are divided, by the video that each
was taken from.

Source: http://www.cvlibs.net/datasets/kitti/eval_object.php; the development kit's readme.
"""

from collections.abc import Sequence

import numpy as np

from vitral.data.datasets.published import DatasetFiles, File, Members, Part, Published
from vitral.data.datasets.vtab import Task
from vitral.errors import DataError

IMAGES, LABELS = "data_object_image_2.zip", "data_object_label_2.zip"
DEVKIT = "devkit_object.zip"
CLASSES = ("vehicle up to 8 m", "vehicle 8 to 20 m", "vehicle over 20 m", "no vehicle")
_VEHICLES = ("Car", "Van", "Truck")
_OTHERS = ("Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc", "DontCare")
_COLUMNS, _DEPTH = 15, 13
_THRESHOLDS = (-100.0, 8.0, 20.0, 999.0)
_NO_VEHICLE = 1000.0
_SEED = 123
_PERCENT = 10
_MIN_VIDEOS = 3
_KITTI = "https://s3.eu-central-1.amazonaws.com/avg-kitti"
FILES = (
    File(
        "data_object_image_2.zip",
        f"{_KITTI}/data_object_image_2.zip",
        "351c5a2aa0cd9238b50174a3a62b846bc5855da256b82a196431d60ff8d43617",
        unpacked="training/image_2",
    ),
    File(
        "data_object_label_2.zip",
        f"{_KITTI}/data_object_label_2.zip",
        "4efc76220d867e1c31bb980bbf8cbc02599f02a9cb4350effa98dbb04aaed880",
        unpacked="training/label_2",
    ),
    File(
        "devkit_object.zip",
        f"{_KITTI}/devkit_object.zip",
        "ce0b76b69c0c5f89690a0d65b7302bbbdb962a0c7e8aba6efc7050d1b04b4cf1",
        unpacked="mapping",
    ),
)


def read_kitti_distance(place: DatasetFiles) -> Published:
    """Read the images with the distance of the nearest vehicle, divided by video."""
    images, labels = place.members(IMAGES), place.members(LABELS)
    videos = read_videos(place.members(DEVKIT))
    parts = {}
    for split, numbers in split_by_video(videos).items():
        names = [f"{number:06}" for number in numbers]
        keys = [f"{name}.png" for name in names]
        parts[split] = Part(
            images.select([f"training/image_2/{key}" for key in keys]),
            [_label(labels, f"training/label_2/{name}.txt") for name in names],
            keys,
        )
    return Published(CLASSES, parts)


def distance_class(depths: Sequence[float]) -> int:
    """Return the class of an image by the distances (m) of its vehicles along the camera's axis.

    0 for a least distance up to 8 m, 1 up to 20 m, 2 beyond, 3 where there is no vehicle; -1, for
    vehicles more than 100 m behind the camera, is no class.

    Source: google-research/task_adaptation, `data/kitti.py`, `closest_vehicle_distance`; distances
    are float32 in TensorFlow Datasets.
    """
    nearest = np.array([*depths, _NO_VEHICLE], np.float32).min()
    return int((np.array(_THRESHOLDS) < nearest).sum()) - 1


def split_by_video(videos: Sequence[str]) -> dict[str, list[int]]:
    """Divide images so that all of a video are of one split, as TensorFlow Datasets does.

    Args:
        videos: of each image, by number; at least three different ones.

    Returns:
        The numbers of the images of "train", "validation" and "test", the last two of a tenth of
        the videos each.

    Source: TensorFlow Datasets, `kitti`, `_build_splits`, the same from 1.2.0 to 4.9.10. What
    `RandomState` draws is kept from one version of numpy to the next.
    """
    generator = np.random.RandomState(_SEED)
    names = sorted(set(videos))
    count = max(1, _PERCENT * len(names) // 100)
    test = set(generator.choice(names, count, replace=False).tolist())
    rest = [name for name in names if name not in test]
    validation = set(generator.choice(rest, count, replace=False).tolist())
    splits: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for index, video in enumerate(videos):
        split = "test" if video in test else "validation" if video in validation else "train"
        splits[split].append(index)
    return splits


def read_videos(devkit: Members) -> list[str]:
    """Return the video that each training image was taken from, by the image's number.

    `train_rand.txt` states a line from 1 of `train_mapping.txt` for each, whose second word it is.

    Raises:
        DataError: the development kit states no such thing.
    """
    line_numbers = devkit.read("mapping/train_rand.txt").decode("utf-8", errors="replace")
    mapping = devkit.read("mapping/train_mapping.txt").decode("utf-8", errors="replace")
    lines = dict(enumerate(mapping.splitlines(), start=1))
    try:
        videos = [lines[int(number)].split()[1] for number in line_numbers.split(",")]
    except (ValueError, LookupError) as error:
        raise DataError(
            f"{devkit.where}: mapping/train_rand.txt and train_mapping.txt state no videos of the "
            f"images ({error!r}): it is not what the publisher distributes"
        ) from None
    if len(set(videos)) < _MIN_VIDEOS:
        raise DataError(
            f"{devkit.where} states images of {len(set(videos))} videos, wanted at least "
            f"{_MIN_VIDEOS} to divide: it is not what the publisher distributes"
        )
    return videos


def _label(labels: Members, name: str) -> str:
    found = [_depth(line, where=f"{labels.where}: {name}") for line in labels.lines(name)]
    depths = [depth for depth in found if depth is not None]
    label = distance_class(depths)
    if label < 0:
        raise DataError(
            f"{labels.where}: {name} has vehicles at {depths} m, wanted distances above "
            f"{_THRESHOLDS[0]:g} m: it is not what the publisher distributes"
        )
    return CLASSES[label]


def _depth(line: str, *, where: str) -> float | None:
    """Return the distance (m) of a line's object along the camera's axis; None: no vehicle."""
    columns = line.split()
    try:
        if len(columns) != _COLUMNS or columns[0] not in _VEHICLES + _OTHERS:
            raise ValueError
        depth = float(columns[_DEPTH])
    except ValueError:
        raise DataError(
            f"{where}: {line!r} is no object of {_COLUMNS} columns, such as "
            "'Car 0.00 0 1.85 387 181 423 203 1.67 1.87 3.69 -16.53 2.39 58.49 1.57'"
        ) from None
    return depth if columns[0] in _VEHICLES else None


TASKS = {
    "kitti-dist": Task(
        group="structured",
        read=read_kitti_distance,
        files=FILES,
        num_classes=4,
        train=("train", 0, 100),
        validation=("validation", 0, 100),
        test=("test", 0, 100),
        num_test=711,
        tree=("kitti",),
        dataset="kitti",
        crop=False,
    ),
}
