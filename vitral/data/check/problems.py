"""The kinds of problems that a data set may have, and what is said of each."""

from dataclasses import dataclass
from typing import Any

ERROR, WARNING, NOTE = "error", "warning", "note"
SMALL_SIDE = 16
"""Pixels of the shorter side, below which an image is called tiny."""
MANY_PIXELS = 25_000_000
"""Above which an image is called huge: decoding it takes half a second."""
MOST_IMBALANCE = 10
"""How many times larger the largest class may be than the smallest before it is told."""
FEW_IMAGES = 5
"""Training images of a class below which it is told."""


@dataclass(frozen=True)
class Kind:
    """A kind of problem."""

    weight: str
    """ERROR: a score or training would be wrong; WARNING: should be looked at; NOTE: is dealt with,
    and good to know."""
    one: str
    many: str
    advice: str = ""


KINDS = {
    "not_whole": Kind(
        ERROR, "thing is not as published", "things are not as published", "download it again"
    ),
    "unreadable": Kind(ERROR, "file can't be read", "files can't be read", "repair or remove them"),
    "across_splits": Kind(
        ERROR,
        "image of one split is a copy of another split's",
        "images of one split are copies of another split's",
        "the score would flatter",
    ),
    "other_class": Kind(
        ERROR,
        "image is a copy of one of another class",
        "images are copies of those of another class",
        "one of the labels is wrong",
    ),
    "groups": Kind(
        ERROR,
        "group is in more than one split",
        "groups are in more than one split",
        "the score would flatter",
    ),
    "also_there": Kind(
        ERROR,
        "image is in the other data too",
        "images are in the other data too",
        "--fix leaves them out",
    ),
    "not_trained": Kind(
        ERROR,
        "class of another split has no training images",
        "classes of other splits have no training images",
        "add some, or take them out",
    ),
    "one_class": Kind(ERROR, "class is all there is, and a classifier needs two", ""),
    "near_across_splits": Kind(
        WARNING,
        "image of one split looks like one of another split",
        "images of one split look like those of another split",
        "the score may flatter; `vitral data check --fix` leaves them out of training",
    ),
    "near_other_class": Kind(
        WARNING,
        "image looks like one of another class",
        "images look like those of another class",
        "one of the labels may be wrong",
    ),
    "copies": Kind(
        WARNING,
        "image is a copy within its split",
        "images are copies within their split",
        "they count twice",
    ),
    "near_copies": Kind(
        WARNING,
        "image looks like another one of its split",
        "images look like others of their split",
    ),
    "flat": Kind(WARNING, "image has one colour only", "images have one colour only"),
    "tiny": Kind(
        WARNING,
        f"image has a side of less than {SMALL_SIDE} pixels",
        f"images have a side of less than {SMALL_SIDE} pixels",
    ),
    "huge": Kind(
        WARNING,
        f"image has more than {MANY_PIXELS // 1_000_000} million pixels",
        f"images have more than {MANY_PIXELS // 1_000_000} million pixels",
        "they are slow to decode: `vitral data pack --resize`",
    ),
    "not_read_yet": Kind(
        WARNING, "file is of a kind that is not read", "files are of kinds that are not read"
    ),
    "wrong_extension": Kind(
        WARNING,
        "file is of another kind than its name says",
        "files are of other kinds than their names say",
        "they are read all the same",
    ),
    "empty_class": Kind(
        WARNING, "class has no usable training image", "classes have no usable training image"
    ),
    "few_images": Kind(
        WARNING,
        f"class has fewer than {FEW_IMAGES} training images",
        f"classes have fewer than {FEW_IMAGES} training images",
    ),
    "imbalance": Kind(
        WARNING,
        "class is far smaller than the largest one",
        "classes are far smaller than the largest one",
    ),
    "not_tested": Kind(
        WARNING,
        "class has training images and none in another split",
        "classes have training images and none in another split",
    ),
    "left_out": Kind(NOTE, "file is left out", "files are left out"),
    "turned": Kind(
        NOTE, "image is turned as its EXIF says", "images are turned as their EXIF says"
    ),
    "cmyk": Kind(NOTE, "CMYK image becomes RGB", "CMYK images become RGB"),
    "palette": Kind(NOTE, "image has a palette", "images have a palette"),
    "alpha": Kind(
        NOTE,
        "image has transparency, which is put on white",
        "images have transparency, which is put on white",
    ),
    "deep": Kind(
        NOTE,
        "image has more than 8 bits a channel, and keeps its values",
        "images have more than 8 bits a channel, and keep their values",
    ),
    "animated": Kind(
        NOTE,
        "image has several frames, of which the first one is taken",
        "images have several frames, of which the first one is taken",
    ),
}
"""In the order in which they are told."""


@dataclass(frozen=True)
class Item:
    """One occurrence of a problem."""

    files: tuple[str, ...]
    """One file, or those that are alike; none where it is of classes or groups."""
    detail: str = ""


@dataclass(frozen=True)
class Problem:
    """A problem and all its occurrences."""

    kind: str
    items: tuple[Item, ...]

    @property
    def weight(self) -> str:
        """How bad it is."""
        return KINDS[self.kind].weight

    @property
    def sentence(self) -> str:
        """What it is, with how many and what to do."""
        kind = KINDS[self.kind]
        what = kind.one if len(self.items) == 1 else kind.many
        return f"{len(self.items):,} {what}" + (f": {kind.advice}" if kind.advice else "")

    def record(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "kind": self.kind,
            "weight": self.weight,
            "count": len(self.items),
            "what": self.sentence,
            "items": [{"files": list(item.files), "detail": item.detail} for item in self.items],
        }
