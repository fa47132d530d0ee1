"""What a source says of its examples: a class and a split each, and what is left out and why."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from vitral.data.stores.store import Store

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
NOT_AN_IMAGE = "not an image"
READ_HINT = (
    "give a folder of class folders (with or without train/, val/, test/), a .csv of "
    "path,label[,split] "
    "or an .npz of images and labels"
)


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
    labels: Sequence[str]
    """The class of each file."""
    splits: Sequence[str | None]
    """"train", "validation", "test", or None where the source does not say."""
    skipped: list[Skipped] = field(default_factory=list)
    classes: tuple[str, ...] | None = None
    """The order of classes, where the source states one."""
    notes: list[str] = field(default_factory=list)

    @property
    def is_split(self) -> bool:
        """Whether the source says which examples are for training and which are not."""
        return len(set(self.splits)) > 1


def class_order(name: str) -> tuple[int, int, str]:
    """Order class names: numbers by value, then text."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
