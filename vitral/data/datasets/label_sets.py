"""Sets of images of which each may be answered by several of ImageNet's 1,000 classes.

ReaL (arXiv 2006.07159) has all classes that people see in a validation image; ObjectNet (NeurIPS
2019) has classes of its own, of which 113 correspond to some of ImageNet's.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.datasets.imagenet import VALIDATION
from vitral.data.datasets.published import DatasetFiles, File, LabelSet
from vitral.data.decode import UnreadableImageError, UnsupportedImageError, decode_image
from vitral.data.sources.listing import Label, Listing, Skipped
from vitral.data.sources.store import Content, Store
from vitral.errors import DataError

NUM_CLASSES = 1000
CLASSES = tuple(map(str, range(NUM_CLASSES)))
"""ImageNet's classes by their number, the rank of their WordNet id."""
BORDER = 2
"""Pixels that are cut off at each side of ObjectNet's images, which have a red frame; its authors'
own loader cuts so many."""
REAL_NAME = "real.json"
REAL = (
    File(
        VALIDATION,
        "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php",
        "c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0",
        unpacked="val",
    ),
    File(
        REAL_NAME,
        "https://github.com/google-research/reassessed-imagenet",
        "d83e9bff374c631aae8439eb064c7019acc56e1b3bc3f56b8380c2a710b0220b",
    ),
)
OBJECTNET_NAME = "objectnet-1.0.zip"
OBJECTNET = (File(OBJECTNET_NAME, "https://objectnet.dev", unpacked="objectnet-1.0"),)
_MAPPINGS = "objectnet-1.0/mappings"


def list_real(place: DatasetFiles) -> Listing:
    """List ImageNet's validation images with their ReaL labels; those without labels are left out.

    Raises:
        DataError: the labels can't be read, or are not of as many images.
    """
    members = place.members(VALIDATION)
    names = sorted(
        (name for name in members.store.names if name.endswith(".JPEG")),
        key=lambda name: name.rpartition("/")[2],
    )
    path = place.path(REAL_NAME)
    sets = _read_json(path.read_bytes(), where=str(path))
    if not isinstance(sets, list) or len(sets) != len(names):
        raise DataError(f"{path} does not hold labels of {len(names):,} images")
    try:
        labels = [tuple(CLASSES[int(number)] for number in numbers) for numbers in sets]
    except (IndexError, TypeError, ValueError) as error:
        raise DataError(f"{path} holds labels that are no classes: {error}") from None
    labelled = [index for index, label in enumerate(labels) if label]
    left_out = [
        Skipped(names[index], "no ReaL label") for index, label in enumerate(labels) if not label
    ]
    return _listing(
        "imagenet-real",
        members.select([names[index] for index in labelled]),
        [labels[index] for index in labelled],
        left_out,
        note=f"{len(left_out):,} images without ReaL labels are left out",
    )


def list_objectnet(place: DatasetFiles) -> Listing:
    """List ObjectNet's images of the classes that it shares with ImageNet, without their frames.

    An answer of all 1,000 classes is right if it is one of those that correspond to the image's.

    Raises:
        DataError: a mapping can't be read.
    """
    members = place.members(OBJECTNET_NAME)

    def mapping(name: str) -> Any:
        return _read_json(members.read(f"{_MAPPINGS}/{name}"), where=f"{members.where}: {name}")

    words = members.lines(f"{_MAPPINGS}/imagenet_to_label_2012_v2")
    classes_of = shared_classes(
        mapping("folder_to_objectnet_label.json"),
        mapping("objectnet_to_imagenet_1k.json"),
        mapping("pytorch_to_imagenet_2012_id.json"),
        words,
        where=members.where,
    )
    names: list[str] = []
    labels: list[Label] = []
    left_out: list[Skipped] = []
    for name in members.store.names:
        parts = name.split("/")
        if len(parts) != 4 or parts[1] != "images":
            continue
        if parts[2] in classes_of:
            names.append(name)
            labels.append(classes_of[parts[2]])
        else:
            left_out.append(Skipped(name, "of a class that ImageNet does not have"))
    return _listing(
        "objectnet",
        FramelessStore(members.select(names)),
        labels,
        left_out,
        note=f"{len(classes_of)} classes that ImageNet has too; {BORDER} pixels are cut off at "
        "each side",
    )


def shared_classes(
    label_of_folder: Mapping[str, str],
    words_of_label: Mapping[str, str],
    line_of_class: Mapping[str, int],
    words: Sequence[str],
    *,
    where: str,
) -> dict[str, tuple[str, ...]]:
    """Return ImageNet's classes of each folder that shares some.

    Args:
        label_of_folder: from a folder's name to its label.
        words_of_label: from a label to ImageNet's words for it, joined by "; ".
        line_of_class: from a class number, as text, to a line of `words`.
        words: ImageNet's words of each line.
        where: the mappings, for errors.

    Raises:
        DataError: they do not fit each other.
    """
    try:
        class_of = {words[line]: number for number, line in line_of_class.items()}
        return {
            folder: tuple(class_of[word] for word in words_of_label[label].split("; "))
            for folder, label in label_of_folder.items()
            if label in words_of_label
        }
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: its mappings do not fit each other: {error!r}") from None


class FramelessStore:
    """Images of a store without their frames."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.names: Sequence[str] = store.names

    def read(self, number: int) -> Content:
        """Return an image's pixels within the frame."""
        content = self._store.read(number)
        assert isinstance(content, bytes)
        try:
            pixels = decode_image(content)
        except (UnreadableImageError, UnsupportedImageError) as error:
            raise OSError(str(error)) from None
        return pixels[BORDER:-BORDER, BORDER:-BORDER]

    def stamp(self, number: int) -> str | None:
        """Return what changes when the content does."""
        stamp = self._store.stamp(number)
        return stamp and f"{stamp}-{BORDER}"

    def blocks(self) -> np.ndarray | None:
        """Return which files are read together."""
        return self._store.blocks()


def _listing(
    name: str, store: Store, labels: Sequence[Label], left_out: list[Skipped], *, note: str
) -> Listing:
    return Listing(
        name,
        store,
        labels,
        ["test"] * len(labels),
        left_out,
        classes=CLASSES,
        notes=[note],
        scoring="any",
    )


def _read_json(content: bytes, *, where: str | Path) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise DataError(f"{where} can't be read: {error}") from None


LABEL_SETS = {
    "imagenet-real": LabelSet(files=REAL, read=list_real),
    "objectnet": LabelSet(files=OBJECTNET, read=list_objectnet),
}
