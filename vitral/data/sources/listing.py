"""What a source says of its examples: labels and a split each, and what is left out and why."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vitral.data.finding import Finding
from vitral.data.stores.store import JoinedStore, Store
from vitral.data.stores.targets import Targets

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
    findings: Sequence[Finding] | None = None
    """What the source itself says that its files are; None: they must be looked into."""
    complaints: list[str] = field(default_factory=list)
    """What is not as the publisher states it."""
    scoring: str = "all"
    """Where images have several labels: whether an answer must be "all" of them or "any" one."""
    in_standard_order: bool = False
    """Whether models of that many outputs have them in the order of `classes`, whatever they call
    them."""
    unfit: frozenset[str] = frozenset()
    """Changes, of "flip" and "crop", that would make of an image one of another class."""
    targets: Mapping[str, Targets] = field(default_factory=dict)
    """What files have beside a class, by kind."""

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
    """Order class names: numbers by value, then text."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
