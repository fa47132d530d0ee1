"""A source with all that a check looks at: findings, labels and splits of all its files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.check.duplicates import MOST_COMPARED, exact_copies, near_copies
from vitral.data.datasets.names import check_files, list_data
from vitral.data.decode import UnreadableImageError, UnsupportedImageError, decode_image
from vitral.data.file_splits import file_shares, file_splits
from vitral.data.finding import Finding
from vitral.data.images import ImageData, own_channels
from vitral.data.labels import names_in, number_labels
from vitral.data.sources.grouping import group_by_pattern
from vitral.data.sources.listing import Label, Listing, class_order
from vitral.data.stores.store import Store
from vitral.data.survey import survey
from vitral.data.visual import thumbnail
from vitral.errors import DataError
from vitral.spec.run import DataSettings

MOST_COMPARED_QUICKLY = 10_000
"""Of these pairs before a training."""


@dataclass(frozen=True)
class CheckedData:
    """All files of a source, used or not; entry i of everything is of the store's file i."""

    listing: Listing
    findings: Sequence[Finding]
    splits: np.ndarray
    """(N,) of "train", "validation", "test"; one of them for all where the source is not split."""
    channels: int
    most_compared: int = MOST_COMPARED
    """Pairs of images with alike hashes whose pictures are compared."""

    @cached_property
    def usable(self) -> np.ndarray:
        """Which files (N,) can be used."""
        return np.array([not finding.problem for finding in self.findings], bool)

    @cached_property
    def copies(self) -> list[list[int]]:
        """The groups of usable files of one content."""
        return exact_copies([own.digest if not own.problem else "" for own in self.findings])

    @cached_property
    def near(self) -> list[tuple[int, int]]:
        """Pairs of usable files that look alike and are no copies; of copies the first stands."""
        later = {number for group in self.copies for number in group[1:]}
        visuals = [
            "" if number in later or finding.problem else finding.visual
            for number, finding in enumerate(self.findings)
        ]
        return near_copies(visuals, self.look, most=self.most_compared)

    def look(self, number: int) -> np.ndarray | None:
        """Return the thumbnail of a file, or None if it can't be read any more."""
        pixels = read_pixels(self.listing.store, number, channels=self.channels)
        return None if pixels is None else thumbnail(pixels)

    def name(self, number: int) -> str:
        """Return the name of a file."""
        return self.listing.store.names[number]

    def label(self, number: int) -> str:
        """Return the class of a file, or its classes joined by |."""
        label: Label = self.listing.labels[number]
        return label if isinstance(label, str) else "|".join(label)

    def classes_of(self, split: str) -> set[str]:
        """Return the classes of the usable files of a split."""
        inside = np.flatnonzero(self.usable & (self.splits == split)).tolist()
        return names_in(self.listing.labels[number] for number in inside)


def open_checked(
    data: Any,
    *,
    directory: str | Path | None = None,
    group_pattern: str | None = None,
    report_progress: Callable[[int, int], None] | None = None,
) -> CheckedData:
    """Open a source and look into all of its files, however many; wrong labels are no error.

    Args:
        data: a path, a name, or a sized object with [i] -> (image, label).
        directory: where the files of named data sets are.
        group_pattern: a regular expression that finds a file's group in its name.
        report_progress: called with the number of files done and of all.

    Raises:
        RequestError: nothing is there, or the pattern can't be used.
        DataError: the source can't be listed, or has no files.
    """
    listing = list_data(data, directory=directory)
    differing = check_files(data, directory=directory)
    listing = replace(listing, complaints=[*listing.complaints, *differing])
    listing = group_by_pattern(listing, group_pattern)
    if not len(listing.labels):
        raise DataError(f"{listing.source} has no images")
    channels = own_channels(listing.store)
    findings = survey(listing, channels=channels, everything=True, report_progress=report_progress)
    usable = np.array([not finding.problem for finding in findings], bool)
    known = listing.classes or tuple(sorted(names_in(listing.labels), key=class_order))
    labels = number_labels(listing.labels, known)
    splits = np.full(len(findings), "train", "<U10")
    shares = file_shares(listing, findings)
    if listing.is_split or shares is not None:
        splits = file_splits(listing, shares, labels, usable, DataSettings(source=""))
    return CheckedData(listing, findings, splits, channels)


def checked_of(data: ImageData) -> CheckedData:
    """Return what a check looks at of data that is open."""
    return CheckedData(
        data.listing, data.findings, data.declared_splits, data.channels, MOST_COMPARED_QUICKLY
    )


def read_pixels(store: Store, number: int, *, channels: int) -> np.ndarray | None:
    """Return a file's pixels, or None if it can't be read any more."""
    try:
        content = store.read(number)
        return decode_image(content, channels=channels) if isinstance(content, bytes) else content
    except (OSError, DataError, UnreadableImageError, UnsupportedImageError):
        return None
