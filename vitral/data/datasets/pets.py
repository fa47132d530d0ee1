"""Oxford-IIIT Pets.

Source: https://www.robots.ox.ac.uk/~vgg/data/pets/
"""

from vitral.data.datasets.published import (
    DatasetFiles,
    File,
    Members,
    NamedDataset,
    Part,
    Published,
)
from vitral.data.datasets.vtab import Task
from vitral.errors import DataError

_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
FILES = (
    File(
        "images.tar.gz",
        f"{_VGG}/pets/data/images.tar.gz",
        "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
        unpacked="images",
    ),
    File(
        "annotations.tar.gz",
        f"{_VGG}/pets/data/annotations.tar.gz",
        "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
        unpacked="annotations",
    ),
)


def read_pets(place: DatasetFiles) -> Published:
    """Read `images.tar.gz` by the lists of `annotations.tar.gz`: image, class from 1, and more."""
    images, lists = place.members("images.tar.gz"), place.members("annotations.tar.gz")
    rows = {
        split: _rows(lists, f"annotations/{name}.txt")
        for split, name in (("train", "trainval"), ("test", "test"))
    }
    name_of = {
        number: name for split_rows in rows.values() for name, number in map(_class_of, split_rows)
    }
    if sorted(name_of) != list(range(1, len(name_of) + 1)):
        raise DataError(f"{lists.where}: its classes are not numbered from 1 on")
    classes = tuple(name_of[number] for number in sorted(name_of))
    return Published(
        classes,
        {
            split: Part(
                images.select([f"images/{name}.jpg" for name, _ in split_rows]),
                [name_of[number] for _, number in split_rows],
                [f"{name}.jpg" for name, _ in split_rows],
            )
            for split, split_rows in rows.items()
        },
    )


def _rows(lists: Members, name: str) -> list[tuple[str, int]]:
    lines = [line.split() for line in lists.lines(name) if not line.startswith("#")]
    try:
        return [(line[0], int(line[1])) for line in lines]
    except (IndexError, ValueError):
        raise DataError(f"{lists.where}: {name} has lines that name no image and class") from None


def _class_of(row: tuple[str, int]) -> tuple[str, int]:
    name, number = row
    return name.rpartition("_")[0], number


DATASETS = {
    "pets": NamedDataset(
        title="Oxford-IIIT Pets",
        files=FILES,
        read=read_pets,
        num_classes=37,
        counts={"train": 3680, "test": 3669},
        source=f"{_VGG}/pets/",
        licence="CC BY-SA 4.0",
    ),
}
TASKS = {
    "pets": Task(
        group="natural",
        read=read_pets,
        files=FILES,
        num_classes=37,
        train=("train", 0, 80),
        validation=("train", 80, 100),
        test=("test", 0, 100),
        num_test=3669,
        tree=("oxford_iiit_pet", "oxford_pet", "pets"),
        dataset="pets",
    ),
}
