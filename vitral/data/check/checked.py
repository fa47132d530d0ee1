"""A source with all that a check looks at: findings, labels and splits of all its files."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vitral.config.run import DataSettings
from vitral.data.dataset import ImageDataset, native_channels
from vitral.data.datasets.names import check_files, list_data
from vitral.data.decode import UnreadableImageError, UnsupportedImageError, decode_image
from vitral.data.scan import likeness, survey, thumbnail
from vitral.data.sources.listing import (
    FileInfo,
    Label,
    Listing,
    class_order,
    group_by_pattern,
    names_in,
    number_labels,
)
from vitral.data.sources.store import Store
from vitral.data.splits import file_shares, file_splits
from vitral.errors import DataError

RADIUS = 6
"""Bits of 64 in which the visual hashes of two images may differ to be compared."""
LIKENESS = 0.98
"""Correlation from which two images are near duplicates. Photographs that are shrunk to half,
enlarged, compressed again or made darker lie above it, and no pair of different ones does. Of small
pictures of simple things (clothes of 28 x 28 pixels), one in some hundred does."""
MOST_COMPARED = 200_000
"""Pairs of images with alike hashes whose pictures are compared."""
_QUARTERS = 4
_QUARTER_BITS = 16
_CHUNK = 4096
_BITS_SET = np.array([number.bit_count() for number in range(1 << _QUARTER_BITS)], np.uint8)


def exact_copies(digests: Sequence[str]) -> list[list[int]]:
    """Return the groups of files of one content, each in order; "" is not known and no copy."""
    groups: dict[str, list[int]] = {}
    for index, digest in enumerate(digests):
        if digest:
            groups.setdefault(digest, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_copies(
    visuals: Sequence[str],
    look: Callable[[int], np.ndarray | None],
    *,
    most: int = MOST_COMPARED,
) -> list[tuple[int, int]]:
    """Return pairs of files that look alike.

    Files that share a visual hash are compared to the first of them only. Films and series may have
    more pairs of similar hashes than can be compared: then only the first pairs are.

    Args:
        visuals: of each file, from `perceptual_hash`; "" takes no part.
        look: returns the thumbnail of a file; None if it can't be read any more.
        most: pairs whose pictures are compared.

    Returns:
        Pairs (first, second), first < second, in order.
    """
    known = [index for index, visual in enumerate(visuals) if visual]
    hashes = np.array([int(visuals[index], 16) for index in known], np.uint64)
    values, firsts, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    candidates = [
        (known[firsts[group]], known[position])
        for position, group in enumerate(inverse.tolist())
        if firsts[group] != position
    ]
    for one, other in pairs_within(values, RADIUS, most=most)[:most].tolist():
        candidates.append(tuple(sorted((known[firsts[one]], known[firsts[other]]))))
    return sorted(_alike(candidates[:most], look))


def pairs_within(hashes: np.ndarray, radius: int, *, most: int = MOST_COMPARED) -> np.ndarray:
    """Return the pairs (P, 2) of different hashes (N,) uint64 that differ in at most `radius` bits.

    Of the four quarters of 16 bits, one differs in at most radius // 4 bits: only hashes with such
    a quarter are compared. The search ends when more than `most` have been found.
    """
    assert radius < 2 * _QUARTERS
    found, count = [np.empty((0, 2), np.int64)], 0
    for quarter in range(_QUARTERS):
        keys = (hashes >> np.uint64(_QUARTER_BITS * quarter)) & np.uint64(0xFFFF)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        for mask in _masks(radius // _QUARTERS):
            for start in range(0, len(hashes), _CHUNK):
                wanted = keys[start : start + _CHUNK] ^ mask
                begin = np.searchsorted(ordered, wanted, side="left")
                counts = np.searchsorted(ordered, wanted, side="right") - begin
                first = np.repeat(np.arange(start, start + len(wanted)), counts)
                offsets = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
                second = order[np.repeat(begin, counts) + offsets]
                near = _count_bits(hashes[first] ^ hashes[second]) <= radius
                found.append(np.stack([first, second], axis=1)[near & (first < second)])
                count += len(found[-1])
                if count > _QUARTERS * most:  # each may have been found in every quarter
                    return np.unique(np.concatenate(found), axis=0)
    return np.unique(np.concatenate(found), axis=0)


def clusters(pairs: Sequence[tuple[int, int]], *, count: int) -> np.ndarray:
    """Return for each of `count` files the first file (N,) int64 that pairs connect it with."""
    parent = np.arange(count)

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = int(parent[index])
        return index

    for one, other in pairs:
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    return np.array([root(index) for index in range(count)], np.int64)


def _count_bits(values: np.ndarray) -> np.ndarray:
    """Return the number of bits that are set in values (N,) uint64."""
    quarters = values.view(np.uint16).reshape(-1, _QUARTERS)
    counts: np.ndarray = _BITS_SET[quarters].sum(axis=1, dtype=np.uint8)
    return counts


def _masks(most: int) -> list[np.uint64]:
    """Return the masks of a quarter with at most `most` (0 or 1) bits set."""
    ones = [np.uint64(1 << bit) for bit in range(_QUARTER_BITS)]
    return [np.uint64(0), *(ones if most else [])]


def _alike(
    candidates: Sequence[tuple[int, int]], look: Callable[[int], np.ndarray | None]
) -> Iterator[tuple[int, int]]:
    wanted = sorted({file_id for pair in candidates for file_id in pair})
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        thumbnails = dict(zip(wanted, pool.map(look, wanted), strict=True))
    for one, other in candidates:
        first, second = thumbnails[one], thumbnails[other]
        if first is not None and second is not None and likeness(first, second) >= LIKENESS:
            yield one, other


MOST_COMPARED_QUICKLY = 10_000
"""The same before a training."""


@dataclass(frozen=True)
class CheckedData:
    """All files of a source, used or not; entry i of each field is of the store's file i."""

    listing: Listing
    file_infos: Sequence[FileInfo]
    splits: np.ndarray
    """(N,) of "train", "validation", "test"; one of them for all where the source is not split."""
    channels: int
    most_compared: int = MOST_COMPARED
    """Pairs of images with alike hashes whose pictures are compared."""

    @cached_property
    def usable(self) -> np.ndarray:
        """Which files (N,) can be used."""
        return np.array([not file_info.problem for file_info in self.file_infos], bool)

    @cached_property
    def copies(self) -> list[list[int]]:
        """The groups of usable files of one content."""
        return exact_copies(
            [file_info.digest if not file_info.problem else "" for file_info in self.file_infos]
        )

    @cached_property
    def near(self) -> list[tuple[int, int]]:
        """Pairs of usable files that look alike and are no copies; of copies the first stands."""
        later = {file_id for group in self.copies for file_id in group[1:]}
        visuals = [
            "" if file_id in later or file_info.problem else file_info.visual
            for file_id, file_info in enumerate(self.file_infos)
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
        return names_in(self.listing.labels[file_id] for file_id in inside)


def open_checked(
    data: Any,
    *,
    directory: str | Path | None = None,
    group_pattern: str | None = None,
    report_progress: Callable[[int, int], None] | None = None,
) -> CheckedData:
    """Open a source and survey all its files, however many; wrong labels are no error.

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
    channels = native_channels(listing.store)
    file_infos = survey(
        listing, channels=channels, everything=True, report_progress=report_progress
    )
    usable = np.array([not file_info.problem for file_info in file_infos], bool)
    known = listing.classes or tuple(sorted(names_in(listing.labels), key=class_order))
    labels = number_labels(listing.labels, known)
    splits = np.full(len(file_infos), "train", "<U10")
    shares = file_shares(listing, file_infos)
    if listing.is_split or shares is not None:
        splits = file_splits(listing, shares, labels, usable, DataSettings(source=""))
    return CheckedData(listing, file_infos, splits, channels)


def checked_of(data: ImageDataset) -> CheckedData:
    """Return the `CheckedData` of a data set that is open."""
    return CheckedData(
        data.listing, data.file_infos, data.declared_splits, data.channels, MOST_COMPARED_QUICKLY
    )


def read_pixels(store: Store, number: int, *, channels: int) -> np.ndarray | None:
    """Return a file's pixels, or None if it can't be read any more."""
    try:
        content = store.read(number)
        return decode_image(content, channels=channels) if isinstance(content, bytes) else content
    except (OSError, DataError, UnreadableImageError, UnsupportedImageError):
        return None
