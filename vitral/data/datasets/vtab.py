"""VTAB's tasks: 1,000 training images of each of 19 data sets, with the full test sets.

The first 800 of a task's training images are `train800`, the first 200 of its validation images
`val200`, in the order of TensorFlow Datasets; both together `train800val200`.

Source: arXiv 1910.04867; google-research/task_adaptation, `data/*.py`.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vitral.data.datasets.published import DatasetFiles, File, Published, Reader
from vitral.data.order import share_of, tfds_order
from vitral.data.sources.listing import Listing, join_listings
from vitral.data.sources.store import FolderStore, SelectedStore
from vitral.errors import DataError

NUM_TRAIN, NUM_VALIDATION = 800, 200
Slice = tuple[str, int, int]
"""A publisher's split, and the percent of it from and to which it is taken."""


@dataclass(frozen=True)
class Task:
    """One of the 19 tasks: a row of the table."""

    group: str
    """"natural", "specialized" or "structured"."""
    read: Reader
    files: tuple[File, ...]
    num_classes: int
    train: Slice
    validation: Slice
    test: Slice
    num_test: int
    tree: tuple[str, ...]
    """Its folder's names in the community's tree."""
    dataset: str
    """Whose files they are."""
    flip: bool = True
    """Whether a mirrored image is still of its class (BiT, arXiv 1912.11370, appendix F)."""
    crop: bool = True
    """Whether a part of an image is still of its class."""


def list_task(name: str, task: Task, directory: Path, *, thousand: bool) -> Listing:
    """List a task from its publisher's files, or else from the community's tree.

    Args:
        name: of the task.
        task: its row.
        directory: where files are looked for.
        thousand: train on all 1,000 images, without a validation split; otherwise on 800.

    Raises:
        RequestError: there are neither.
        DataError: they are not what was published.
    """
    found = find_task(task, directory)
    if isinstance(found, Path):
        return list_tree(found, task, thousand=thousand)
    return list_published(name, task, task.read(found), thousand=thousand)


def find_task(task: Task, directory: Path) -> Path | DatasetFiles:
    """Return where a task's files are, unread: in the community's tree, or as published.

    Raises:
        RequestError: there are neither.
    """
    tree = _find_tree(task, directory)
    if tree is not None:
        return tree
    place = DatasetFiles(directory, task.dataset, task.files)
    place.check()
    return place


def list_published(name: str, task: Task, published: Published, *, thousand: bool) -> Listing:
    """List the images of a task among all that were published."""
    train = _take(published, task.train)[:NUM_TRAIN]
    validation = _take(published, task.validation)[:NUM_VALIDATION]
    parts = [
        _listing(published, task.train[0], train, split="train"),
        _listing(
            published,
            task.validation[0],
            validation,
            split="train" if thousand else "validation",
        ),
        _listing(published, task.test[0], _take(published, task.test), split="test"),
    ]
    # Names must differ where a publisher only numbers images.
    prefixes = [f"{part[0]}/" for part in (task.train, task.validation, task.test)]
    listing = join_listings(parts, prefixes, source=name, classes=published.classes)
    return replace(listing, notes=[*listing.notes, *published.notes])


def list_tree(folder: Path, task: Task, *, thousand: bool) -> Listing:
    """List a task's folder of the community's tree, of lists `train800.txt` and so on.

    Raises:
        DataError: a list is missing or empty, or a line names no image and class.
    """
    lists = (
        {"train": "train800val200"} if thousand else {"train": "train800", "validation": "val200"}
    )
    names: list[str] = []
    labels: list[str] = []
    splits: list[str | None] = []
    for split, list_name in (lists | {"test": "test"}).items():
        for line in _lines(folder / f"{list_name}.txt"):
            name, _, label = line.rpartition(" ")
            if not name or not label.isdecimal() or int(label) >= task.num_classes:
                raise DataError(
                    f"{folder / list_name}.txt: {line!r} is no path and class below "
                    f"{task.num_classes}"
                )
            names.append(name)
            labels.append(label)
            splits.append(split)
    classes = tuple(map(str, range(task.num_classes)))
    notes = ["from the community's tree, whose images were compressed again (JPEG of quality 75)"]
    store = FolderStore(folder, names)
    return Listing(str(folder.resolve()), store, labels, splits, classes=classes, notes=notes)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {error}") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty: it must list images, a path and a class a line")
    return lines


def _find_tree(task: Task, directory: Path) -> Path | None:
    paths = [directory / top / tree for tree in task.tree for top in ("vtab-1k", "")]
    return next((path for path in paths if (path / "test.txt").is_file()), None)


def _take(published: Published, wanted: Slice) -> np.ndarray:
    """Return the indices, in the publisher's part, of a slice of the stored order."""
    name, first, end = wanted
    keys = published.parts[name].keys
    order = tfds_order(name, keys)
    return order[share_of(len(keys), first) : share_of(len(keys), end)]


def _listing(published: Published, part_name: str, indices: np.ndarray, *, split: str) -> Listing:
    part = published.parts[part_name]
    labels = [part.labels[index] for index in indices.tolist()]
    return Listing("", SelectedStore(part.store, indices.tolist()), labels, [split] * len(labels))
