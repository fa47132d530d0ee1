"""Which examples are for training, validation and test: as the source says, or by content hash.

Without splits of the source, each image goes by its own content hash, so that adding images moves
none and copies stay together; or by the hash of its group, where images of a group belong together.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vitral.data.scan import MAX_FILES_READ
from vitral.data.sources.listing import members_by_class, rarest_class
from vitral.errors import DataError, RequestError

if TYPE_CHECKING:
    from vitral.config.run import DataSettings
    from vitral.data.dataset import ImageDataset
    from vitral.data.sources.listing import FileInfo, Listing


TRAIN_BELOW, VALIDATION_BELOW = 0.8, 0.9


def hash_shares(digests: Sequence[str]) -> np.ndarray:
    """Map each content hash to [0, 1), uniform over contents."""
    return np.array([int(digest[:13], 16) / 16**13 for digest in digests])


def group_shares(groups: Sequence[str]) -> np.ndarray:
    """Map each group to [0, 1), uniform over groups."""
    return hash_shares([hashlib.sha256(group.encode()).hexdigest() for group in groups])


def other_shares(shares: np.ndarray) -> np.ndarray:
    """Return other shares in [0, 1) of the same contents, independent of the first ones."""
    other: np.ndarray = shares * 4096 % 1  # the lower bits
    return other


def split_by_shares(shares: np.ndarray) -> np.ndarray:
    """Split examples by shares (N,) alone, whatever their classes."""
    splits = np.select(
        [shares < TRAIN_BELOW, shares < VALIDATION_BELOW], ["train", "validation"], "test"
    )
    return splits.astype("<U10")


def split_by_hash(shares: np.ndarray, labels: np.ndarray, *, grouped: bool = False) -> np.ndarray:
    """Split examples by their hashes: below 0.8 train, below 0.9 validation, else test.

    A class left without a train or test image gets the one with the nearest hash; one that has a
    single content or group keeps it for training.

    Args:
        shares: (N,), from `hash_shares` or `group_shares`.
        labels: (N,) class numbers, or (N, K) of 0 and 1.
        grouped: whether equal hashes are a group, which moves as a whole, whatever its classes.
            What a class needs for training goes before what another one needs for the test.

    Returns:
        (N,) of "train", "validation", "test".
    """
    splits = split_by_shares(shares)
    for wanted in ("test", "train"):
        for members in members_by_class(labels):
            class_shares = shares[members]
            if (splits[members] == wanted).any() or (
                wanted == "test" and class_shares.max() == class_shares.min()
            ):
                continue
            nearest = shares == (class_shares.max() if wanted == "test" else class_shares.min())
            splits[nearest if grouped else nearest & members] = wanted
    return splits


def stratified_folds(shares: np.ndarray, labels: np.ndarray, *, folds: int) -> np.ndarray:
    """Return the fold (N,) of each example; every fold gets a similar number of each class.

    Each fold gets a contiguous part of a class's examples, in the order of their hashes: so an
    example that is added moves at most one other from each fold to the next. Equal hashes, of a
    content or a group, stay together, and count for the class that most of them have. An image of
    several classes counts for the rarest one.

    Args:
        shares: (N,), from `hash_shares` or `group_shares`.
        labels: (N,) class numbers, or (N, K) of 0 and 1.
        folds: how many, two or more.
    """
    strata = rarest_class(labels) if labels.ndim == 2 else labels
    units, unit_of, sizes = np.unique(shares, return_inverse=True, return_counts=True)
    counts = np.zeros((len(units), int(strata.max(initial=-1)) + 2), np.int64)
    np.add.at(counts, (unit_of, strata), 1)
    stratum_of_unit = counts.argmax(axis=1)
    fold_of_unit = np.zeros(len(units), np.int64)
    for stratum in np.unique(stratum_of_unit):
        inside = stratum_of_unit == stratum
        middle = np.cumsum(sizes[inside]) - sizes[inside] / 2
        fold_of_unit[inside] = middle * folds // sizes[inside].sum()
    return fold_of_unit[unit_of]


def hold_out_by_hash(
    shares: np.ndarray, labels: np.ndarray, *, share: float, grouped: bool = False
) -> np.ndarray:
    """Return which training examples become validation: those of low hashes, never a whole class.

    Args:
        shares: (N,), from `hash_shares` or `group_shares`.
        labels: (N,) class numbers, or (N, K) of 0 and 1.
        share: of the examples, about.
        grouped: whether equal hashes are a group, which stays together.

    Returns:
        (N,) bool.
    """
    held_out = shares < share
    for members in members_by_class(labels):
        if held_out[members].all():
            held_out &= ~(np.isin(shares, shares[members]) if grouped else members)
    return held_out


def file_shares(listing: Listing, file_infos: Sequence[FileInfo]) -> np.ndarray | None:
    """Return the shares of files by the hash of their group or their content; None: not known.

    An unreadable file has a hash too, so that the split of its row does not depend on its repair.
    """
    if listing.groups is not None:
        return group_shares(listing.groups)
    digests = [file_info.digest for file_info in file_infos]
    return hash_shares([digest or "0" for digest in digests]) if any(digests) else None


def file_splits(
    listing: Listing,
    shares: np.ndarray | None,
    labels: np.ndarray,
    usable: np.ndarray,
    settings: DataSettings,
) -> np.ndarray:
    """Return the split (N,) of every file: the source's own, or by hash.

    Args:
        listing: of N files.
        shares: from `file_shares`.
        labels: of all files, as numbers.
        usable: (N,) bool.
        settings: `folds` and `fold`.

    Raises:
        RequestError: folds of data that has splits.
        DataError: there are neither splits nor hashes.
    """
    if listing.is_split:
        if settings.folds:
            raise RequestError(
                f"folds={settings.folds}: {listing.source} has splits of its own, which folds "
                "would mix: give the part that shall be divided"
            )
        return np.array([str(split) for split in listing.splits], "<U10")
    if shares is None:
        raise DataError(
            f"{listing.source} has {len(listing.labels):,} files and no splits: above "
            f"{MAX_FILES_READ:,} they are not read to be split by content, put them into train/, "
            "validation/ and test/"
        )
    splits = split_by_shares(shares)
    if settings.folds:
        folds = stratified_folds(shares[usable], labels[usable], folds=settings.folds)
        splits[usable] = np.where(folds == settings.fold, "test", "train")
        return splits
    splits[usable] = split_by_hash(shares[usable], labels[usable], grouped=bool(listing.groups))
    return splits


def describe_splits(listing: Listing, settings: DataSettings) -> str | None:
    """Describe how the files were split; None where the source states its splits."""
    if listing.is_split:
        return None
    by = "group" if listing.groups else "content hash"
    if settings.folds:
        return (
            f"split by {by} into {settings.folds} folds, of which fold {settings.fold} is the test"
        )
    return f"split by {by}: 80 % train, 10 % validation, 10 % test"


def hold_out(images: ImageDataset, *, share: float) -> ImageDataset:
    """Move a share of the training images of each class to validation, never a whole class.

    By content hash, or by group where images have groups: the same images whatever else changes.

    Raises:
        DataError: there are too few images to hold any out.
    """
    train = images.splits["train"]
    shares = file_shares(images.listing, images.file_infos)
    names = images.listing.store.names
    fractions = group_shares(names) if shares is None else shares
    # The first bits decide how unsplit data is split.
    folds = stratified_folds(
        other_shares(fractions)[train.file_ids], train.labels, folds=max(2, round(1 / share))
    )
    held_out, rest = np.flatnonzero(folds == 0), np.flatnonzero(folds)
    if not len(held_out) or not len(rest):
        raise DataError(
            f"{images.source} has {len(train):,} training images, of which no {share:.0%} can be "
            "held out: give more, or a validation split of their own"
        )
    splits = images.splits | {"train": train.select(rest), "validation": train.select(held_out)}
    return dataclasses.replace(images, splits=splits)


def all_for_training(images: ImageDataset) -> ImageDataset:
    """Return the data with its validation images among the training ones."""
    train, validation = images.splits["train"], images.splits.get("validation")
    if validation is None:
        return images
    splits = images.splits | {
        "train": dataclasses.replace(
            train,
            file_ids=np.concatenate([train.file_ids, validation.file_ids]),
            labels=np.concatenate([train.labels, validation.labels]),
        )
    }
    del splits["validation"]
    return dataclasses.replace(images, splits=splits)


def without_split(images: ImageDataset, split: str) -> ImageDataset:
    """Return the data without a split, so that nothing can look at it."""
    splits = {name: examples for name, examples in images.splits.items() if name != split}
    return dataclasses.replace(images, splits=splits)


def find_overlap(images: ImageDataset, *, split: str = "test") -> list[tuple[str, str]]:
    """Return the images of a split that are training images too, by content: their two names.

    Empty where files have not been read, which is above 200,000 of them.
    """
    if split not in images.splits or "train" not in images.splits:
        return []
    train, scored = images.splits["train"], images.splits[split]
    trained = {images.file_infos[file_id].digest: file_id for file_id in train.file_ids.tolist()}
    trained.pop("", None)
    names = images.listing.store.names
    return [
        (names[file_id], names[trained[digest]])
        for file_id in scored.file_ids.tolist()
        if (digest := images.file_infos[file_id].digest) in trained
    ]


def check_overlap(images: ImageDataset, *, split: str = "test") -> None:
    """Make sure that what is scored has not been trained on.

    Raises:
        DataError: it has.
    """
    found = find_overlap(images, split=split)
    if found:
        name, other = found[0]
        raise DataError(
            f"{len(found):,} of {len(images.splits[split]):,} {split} images of {images.source} "
            f"are training images too, such as {name} (as {other}): the score would flatter; "
            "`vitral data check --fix` writes a list without them"
        )
