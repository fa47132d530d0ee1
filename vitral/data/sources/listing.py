"""What a source says of its examples, label, split and group, and what it leaves out."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vitral.data.sources.store import JoinedStore, Store, Targets
from vitral.errors import RequestError


@dataclass(frozen=True)
class FileInfo:
    """Facts about one file."""

    digest: str = ""
    """SHA-256 of the content, hex, first 32 digits; empty when not read."""
    stamp: str = field(default="", compare=False)
    """The store's stamp when it was read; while it is unchanged, the digest is valid."""
    format: str = ""
    mode: str = ""
    height: int = 0
    width: int = 0
    turned: bool = False
    num_frames: int = 1
    depth: str = "uint8"
    """The type of its values."""
    lowest: float = 0.0
    """The lowest of its values."""
    highest: float = 0.0
    visual: str = ""
    """The visual hash from `perceptual_hash`; empty where nothing is visible."""
    is_flat: bool = False
    """Whether all its pixels are equal."""
    problem: str = ""
    """Why the image can't be used; empty when it can."""
    damaged: bool = False
    """Whether the problem is damage, not an unsupported kind of image."""

    @property
    def is_deep(self) -> bool:
        """Whether the values are of more than eight bits."""
        return self.depth != "uint8"


SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
NOT_AN_IMAGE = "not an image"
EMPTY_FOLDER = "an empty folder"
READ_HINT = (
    "give a folder of class folders (with or without train/, val/, test/), a .zip or .tar of one, "
    "a list (.csv, .jsonl, .parquet) of path,label[,split], shards (.tar of KEY.jpg and KEY.cls), "
    "tables with images (.parquet, .arrow), or an .npz of images and labels"
)
Label = str | tuple[str, ...]
"""The class of an image, or all of its classes where it may have several."""


@dataclass(frozen=True)
class Skipped:
    """A file that is not used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """The examples of a source, not opened yet; entry i is the store's file i."""

    source: str
    """The path, absolute, or the name."""
    store: Store
    labels: Sequence[Label]
    """Of each file: its class, or for all files tuples of any number of classes."""
    splits: Sequence[str | None]
    """"train", "validation", "test", or None where the source does not say."""
    skipped: list[Skipped] = field(default_factory=list)
    classes: tuple[str, ...] | None = None
    """The order of classes, where the source states one."""
    notes: list[str] = field(default_factory=list)
    groups: Sequence[str] | None = None
    """What must not be torn apart by a split, such as a patient or a place."""
    file_infos: Sequence[FileInfo] | None = None
    """Facts about the files that the source itself states; None: they must be surveyed."""
    complaints: list[str] = field(default_factory=list)
    """Differences from what the publisher states."""
    scoring: str = "all"
    """Where images have several labels: whether an answer must be "all" of them or "any" one."""
    in_standard_order: bool = False
    """Whether models of that many outputs have them in the order of `classes`, whatever they call
    them."""
    disabled_augmentations: frozenset[str] = frozenset()
    """Changes, of "flip" and "crop", that would make of an image one of another class."""
    targets: Mapping[str, Targets] = field(default_factory=dict)
    """What files have besides a class, by kind."""

    @property
    def is_split(self) -> bool:
        """Whether the source says which examples are for training and which are not."""
        return len(set(self.splits)) > 1 or self.scoring == "any"

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have several classes, or none."""
        return bool(len(self.labels)) and isinstance(self.labels[0], tuple)


def join_listings(
    parts: Sequence[Listing],
    prefixes: Sequence[str],
    *,
    source: str,
    classes: tuple[str, ...] | None = None,
) -> Listing:
    """Put listings one after the other, each with a prefix before its names."""
    groups = None
    if any(part.groups is not None for part in parts):
        # An image of no group is one of its own.
        groups = [group for part in parts for group in part.groups or part.store.names]
    return Listing(
        source,
        JoinedStore([part.store for part in parts], prefixes),
        [label for part in parts for label in part.labels],
        [split for part in parts for split in part.splits],
        [
            Skipped(prefix + item.name, item.reason)
            for part, prefix in zip(parts, prefixes, strict=True)
            for item in part.skipped
        ],
        classes=classes,
        notes=[note for part in parts for note in part.notes],
        groups=groups,
    )


def split_of_file(name: str) -> str | None:
    """Return the split that the beginning of a file's name says, as in `train-00000.tar`."""
    match = re.match(r"[A-Za-z]+", name)
    return SPLIT_NAMES.get(match[0].lower()) if match else None


def class_order(name: str) -> tuple[int, int, str]:
    """Return the sort key of a class name: numbers by value, then text."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def group_by_pattern(listing: Listing, pattern: str | None) -> Listing:
    """Return a listing whose groups are what a pattern finds in the names of its files.

    Args:
        listing: of any source.
        pattern: a regular expression; a file's group is what its first parentheses match, or all
            that it matches; a file that it does not fit is a group of its own. None: no change.

    Raises:
        RequestError: it is no regular expression, or fits no name.
    """
    if pattern is None:
        return listing
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise RequestError(f"group_pattern={pattern!r} is no regular expression: {error}") from None
    names = listing.store.names
    matches = [expression.search(name) for name in names]
    if names and not any(matches):
        raise RequestError(
            f"group_pattern={pattern!r} fits no file's name, such as {names[0]!r}: give one that "
            "finds a file's group in its name"
        )
    groups = [
        name if match is None else match[1 if expression.groups else 0] or name
        for name, match in zip(names, matches, strict=True)
    ]
    return replace(listing, groups=groups)


def names_in(labels: Iterable[Label]) -> set[str]:
    """Return all class names that labels have."""
    return {name for label in labels for name in ((label,) if isinstance(label, str) else label)}


def number_labels(labels: Sequence[Label], classes: Sequence[str]) -> np.ndarray:
    """Return labels as numbers.

    Args:
        labels: of N images: a class name each, or a tuple of them each.
        classes: K names, in order.

    Returns:
        (N,) int64, -1 for a name that is not among the classes; for tuples (N, K) uint8 of 0 and 1.
    """
    number_of = {name: index for index, name in enumerate(classes)}
    if not labels or isinstance(labels[0], str):
        return np.array([number_of.get(str(name), -1) for name in labels], np.int64)
    multi_hot = np.zeros((len(labels), len(classes)), np.uint8)
    for row, label in enumerate(labels):
        multi_hot[row, [number_of[name] for name in label if name in number_of]] = 1
    return multi_hot


def is_multi_label(labels: np.ndarray) -> bool:
    """Return whether labels from `number_labels` are of images with any number of classes."""
    return labels.ndim == 2


def class_counts(labels: np.ndarray, *, num_classes: int) -> np.ndarray:
    """Return the number of images (K,) int64 of each class."""
    if is_multi_label(labels):
        return labels.sum(axis=0, dtype=np.int64)
    return np.bincount(labels[labels >= 0], minlength=num_classes)


def members_by_class(labels: np.ndarray) -> Iterable[np.ndarray]:
    """Return, for each class that has images, which ones they are, (N,) bool."""
    if is_multi_label(labels):
        return (column.astype(bool) for column in labels.T if column.any())
    return (labels == label for label in np.unique(labels))


def rarest_class(multi_hot: np.ndarray) -> np.ndarray:
    """Return the rarest class of each image, (N,) int64; K where it has none."""
    counts = multi_hot.sum(axis=0, dtype=np.int64)
    ranks = np.where(multi_hot.astype(bool), counts, np.iinfo(np.int64).max)
    has_none = ~multi_hot.any(axis=1)
    return np.where(has_none, multi_hot.shape[1], ranks.argmin(axis=1))


def label_text(label: np.ndarray | int, classes: Sequence[str]) -> str:
    """Return the class name of one image's label, or its class names joined by |; none: empty."""
    if np.ndim(label) == 0:
        return classes[int(label)] if label >= 0 else ""
    return "|".join(classes[index] for index in np.flatnonzero(label).tolist())
