"""Describable Textures.

Source: https://www.robots.ox.ac.uk/~vgg/data/dtd/
"""

from vitral.data.datasets.published import DatasetFiles, File, Part, Published
from vitral.data.datasets.vtab import Task

_LISTS = {"train": "train1", "validation": "val1", "test": "test1"}
_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
FILES = (
    File(
        "dtd-r1.0.1.tar.gz",
        f"{_VGG}/dtd/download/dtd-r1.0.1.tar.gz",
        "e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
        unpacked="dtd",
    ),
)


def read_dtd(place: DatasetFiles) -> Published:
    """Read `dtd-r1.0.1.tar.gz` by the lists of its first fold, the one that VTAB uses."""
    members = place.members("dtd-r1.0.1.tar.gz")
    names = {
        split: members.lines(f"dtd/labels/{list_name}.txt") for split, list_name in _LISTS.items()
    }
    labels = {
        split: [name.split("/")[0] for name in split_names] for split, split_names in names.items()
    }
    return Published(
        tuple(sorted({label for split_labels in labels.values() for label in split_labels})),
        {
            split: Part(
                members.select([f"dtd/images/{name}" for name in split_names]),
                labels[split],
                split_names,
            )
            for split, split_names in names.items()
        },
    )


TASKS = {
    "dtd": Task(
        group="natural",
        read=read_dtd,
        files=FILES,
        num_classes=47,
        train=("train", 0, 100),
        validation=("validation", 0, 100),
        test=("test", 0, 100),
        num_test=1880,
        tree=("dtd",),
        dataset="dtd",
    ),
}
