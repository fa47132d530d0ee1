"""CIFAR-10 and CIFAR-100, from their binary versions: the usual ones are pickles, which run code.

Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import numpy as np

from vitral.data.datasets.published import (
    DatasetFiles,
    File,
    Members,
    NamedDataset,
    Part,
    Published,
    keys_of_numbers,
)
from vitral.data.datasets.vtab import Task
from vitral.data.sources.arrays import ArrayStore
from vitral.errors import DataError

_PIXELS = 3 * 32 * 32
_TORONTO = "https://www.cs.toronto.edu/~kriz"
CIFAR10_FILES = (
    File(
        "cifar-10-binary.tar.gz",
        f"{_TORONTO}/cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        unpacked="cifar-10-batches-bin",
    ),
)
CIFAR100_FILES = (
    File(
        "cifar-100-binary.tar.gz",
        f"{_TORONTO}/cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        unpacked="cifar-100-binary",
    ),
)


def read_cifar10(place: DatasetFiles) -> Published:
    """Read `cifar-10-binary.tar.gz`: a byte of the class, then red, green and blue."""
    members = place.members("cifar-10-binary.tar.gz")
    folder = "cifar-10-batches-bin"
    classes = tuple(members.lines(f"{folder}/batches.meta.txt"))
    names = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)],
             "test": ["test_batch.bin"]}  # fmt: skip
    parts = {
        split: _part(members, [f"{folder}/{name}" for name in file_names], classes, label_bytes=1)
        for split, file_names in names.items()
    }
    return Published(classes, parts)


def read_cifar100(place: DatasetFiles) -> Published:
    """Read `cifar-100-binary.tar.gz`: bytes of the coarse and the fine class, then the colours."""
    members = place.members("cifar-100-binary.tar.gz")
    folder = "cifar-100-binary"
    classes = tuple(members.lines(f"{folder}/fine_label_names.txt"))
    parts = {
        split: _part(members, [f"{folder}/{split}.bin"], classes, label_bytes=2)
        for split in ("train", "test")
    }
    return Published(classes, parts)


def _part(
    members: Members, names: list[str], classes: tuple[str, ...], *, label_bytes: int
) -> Part:
    content = b"".join(members.read(name) for name in names)
    width = label_bytes + _PIXELS
    if len(content) % width:
        raise DataError(
            f"{members.where}: {', '.join(names)} of {len(content):,} bytes is cut short: a record "
            f"has {width:,}"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, width)
    labels = rows[:, label_bytes - 1]
    if len(labels) and labels.max() >= len(classes):
        raise DataError(f"{members.where}: class {labels.max()} of {len(classes)} in {names[0]}")
    images = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Part(
        ArrayStore(images, path=members.where),
        [classes[label] for label in labels.tolist()],
        keys_of_numbers(len(labels)),
    )


DATASETS = {
    "cifar10": NamedDataset(
        title="CIFAR-10",
        files=CIFAR10_FILES,
        read=read_cifar10,
        num_classes=10,
        counts={"train": 50_000, "test": 10_000},
        source=f"{_TORONTO}/cifar.html",
        licence="not stated",
    ),
    "cifar100": NamedDataset(
        title="CIFAR-100",
        files=CIFAR100_FILES,
        read=read_cifar100,
        num_classes=100,
        counts={"train": 50_000, "test": 10_000},
        source=f"{_TORONTO}/cifar.html",
        licence="not stated",
    ),
}
TASKS = {
    "cifar100": Task(
        group="natural",
        read=read_cifar100,
        files=CIFAR100_FILES,
        num_classes=100,
        train=("train", 0, 90),
        validation=("train", 90, 100),
        test=("test", 0, 100),
        num_test=10_000,
        tree=("cifar", "cifar100", "cifar_100"),
        dataset="cifar100",
    ),
}
