"""Catalogue of public weights: what they are, where they are stored, and their published figures.

The table is `catalogue.csv` beside this file, one row per published set of weights. Its figures
are as published, each with its source; none was measured here.
"""

import csv
import functools
import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

FORMATS = ("official", "timm", "huggingface", "torchvision", "dino", "mae")
COMMERCIAL = ("yes", "no", "unclear")


@dataclass(frozen=True)
class CatalogueEntry:
    """One published set of weights."""

    name: str
    """What a user types, such as `google/vit-base-patch16-224`."""
    model: str
    """Its architecture in Vitral's spelling, such as `ViT-B/16`; `notes` says what differs."""
    origin: str
    """`hf://owner/name`, or the https address of the file."""
    format: str
    """How the file names its arrays: one of `FORMATS`."""
    parameters: int
    """Numbers in the network at `image_size` with `num_classes` outputs; zero heads, decoders and
    mask tokens are not counted."""
    image_size: int
    """Pixels of a side that the stored positions are for; of a ResNet, of training."""
    num_classes: int
    """Outputs of the classifier; 0: there is none, or its weights are zero."""
    training_data: str
    """The data sets that it was trained on, in order."""
    preprocessing: str
    """The preprocessing of images, as published."""
    top1: float | None
    """Published accuracy in percent; None: none was found, or there is no classifier."""
    top1_split: str
    """The split that `top1` is for, such as `ImageNet val`."""
    top1_resolution: int | None
    """Pixels of a side that `top1` was measured at."""
    top1_source: str
    """Who published `top1`, and where."""
    licence: str
    """SPDX name of the licence that the publisher states."""
    commercial: str
    """Whether that licence allows commercial use: one of `COMMERCIAL`."""
    notes: str
    """What else to know, such as a missing classifier."""


@functools.cache
def read_catalogue() -> tuple[CatalogueEntry, ...]:
    """Return every entry, in the order of the table."""
    table = resources.files("vitral.config").joinpath("catalogue.csv").read_text(encoding="utf-8")
    return tuple(_entry(row) for row in csv.DictReader(table.splitlines()))


def search_catalogue(text: str) -> tuple[CatalogueEntry, ...]:
    """Return the entries that contain every word of a text; all entries if it has no words.

    Args:
        text: words, in any case. Separators inside a word do not matter: `b16`, `B/16` and `B_16`
            find the same.
    """
    words = [(fold(word), _giant(word)) for word in text.split() if fold(word)]
    return tuple(
        entry
        for entry in read_catalogue()
        if all(
            _occurs(word, entry) and giant in (None, _giant(entry.model)) for word, giant in words
        )
    )


def find_entry(name: str) -> CatalogueEntry | None:
    """Return the entry of exactly that name, ignoring case, or None."""
    entries = {entry.name.lower(): entry for entry in read_catalogue()}
    return entries.get(name.strip().lower())


def _giant(text: str) -> str | None:
    """Return g or G if a word names ViT-g or ViT-G, which differ by case alone; else None."""
    match = re.fullmatch(r"(?i:vit[-_]?)?([gG])[-/_]?14", text)
    return match[1] if match else None


def fold(text: str) -> str:
    """Return a text's letters and digits in lower case."""
    return re.sub(r"[\W_]+", "", text.lower())


def _occurs(word: str, entry: CatalogueEntry) -> bool:
    return any(word in field for field in _searched(entry))


@functools.cache
def _searched(entry: CatalogueEntry) -> tuple[str, ...]:
    fields = (
        entry.name, entry.model, entry.training_data, entry.licence, entry.format, entry.notes,
    )  # fmt: skip
    return tuple(map(fold, fields))


def _entry(row: dict[str, str]) -> CatalogueEntry:
    numbers: dict[str, Any] = {
        "parameters": int(row["parameters"]),
        "image_size": int(row["image_size"]),
        "num_classes": int(row["num_classes"]),
        "top1": float(row["top1"]) if row["top1"] else None,
        "top1_resolution": int(row["top1_resolution"]) if row["top1_resolution"] else None,
    }
    return CatalogueEntry(**{**row, **numbers})
