"""SUN397, divided by the lists of TensorFlow Datasets, as in VTAB.

Source: https://vision.princeton.edu/projects/2010/SUN/; TensorFlow Datasets 4.4.0,
`image_classification/sun.py`, its configuration `tfds`.
"""

from collections.abc import Sequence
from pathlib import Path

from vitral.data.datasets.published import DatasetFiles, File, Part, Published
from vitral.data.datasets.vtab import Task
from vitral.errors import DataError

ARCHIVE, FOLDER = "SUN397.tar.gz", "SUN397"
LISTS = {
    "train": "sun397_tfds_tr.txt",
    "validation": "sun397_tfds_va.txt",
    "test": "sun397_tfds_te.txt",
}
NOTE = (
    "images are as the publisher gives them; TensorFlow Datasets shrinks those of more than "
    "120,000 pixels and compresses all again"
)
_TFDS = (
    "https://github.com/tensorflow/datasets/tree/v4.4.0/tensorflow_datasets/image_classification"
)
FILES = (
    File(
        "SUN397.tar.gz",
        "https://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
        "f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec",
        unpacked="SUN397",
    ),
    File(
        "sun397_tfds_tr.txt",
        _TFDS,
        "764d9aa5c7b67a12b1a5ef784656a84f6a3a3cc0383ce9dc7acc59e3efd45791",
    ),
    File(
        "sun397_tfds_va.txt",
        _TFDS,
        "0f5f5e56d4c10ea6dd64108980ce1fa3d0a5d92b61ef92530f34b6aa2dbaf192",
    ),
    File(
        "sun397_tfds_te.txt",
        _TFDS,
        "e172ef48fe5e94e26b698b0cdc56d9e100ae072eeb44d2e9e9e5bc289337fccc",
    ),
)


def read_sun397(place: DatasetFiles) -> Published:
    """Read `SUN397.tar.gz` by the three lists; an image that a list names may be missing in it.

    Raises:
        DataError: a list can't be read, or names what is no image of a class.
    """
    members = place.members(ARCHIVE)
    keys = {split: read_list(place.path(name)) for split, name in LISTS.items()}
    labels = {split: [class_of(key) for key in split_keys] for split, split_keys in keys.items()}
    return Published(
        tuple(sorted({label for split_labels in labels.values() for label in split_labels})),
        {
            split: Part(
                members.select([f"{FOLDER}{key}" for key in split_keys]), labels[split], split_keys
            )
            for split, split_keys in keys.items()
        },
        notes=(NOTE,),
    )


def read_list(path: Path) -> Sequence[str]:
    """Return the lines of a list, such as `/a/abbey/sun_aaaulhwrhqgejnyt.jpg`.

    Raises:
        DataError: it can't be read, or a line is no path of that form.
    """
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {error}") from None
    for line in lines:
        if not line.startswith("/") or line.count("/") < 3 or not line.endswith(".jpg"):
            raise DataError(
                f"{path}: {line!r} is no image of the form /LETTER/CLASS/NAME.jpg: take the list "
                "from the package tensorflow-datasets"
            )
    return lines


def class_of(key: str) -> str:
    """Return an image's class: its path without the file's name, as `/a/apse/indoor`."""
    return key.rpartition("/")[0]


TASKS = {
    "sun397": Task(
        group="natural",
        read=read_sun397,
        files=FILES,
        num_classes=397,
        train=("train", 0, 100),
        validation=("validation", 0, 100),
        test=("test", 0, 100),
        num_test=21_750,
        tree=("sun397",),
        dataset="sun397",
    ),
}
