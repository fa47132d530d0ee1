"""Changing the splits of opened data: a part for choosing settings, all for the final training."""

import dataclasses

import numpy as np

from vitral.data.file_splits import file_shares
from vitral.data.images import ImageData
from vitral.data.split import group_shares, other_shares, stratified_folds
from vitral.errors import DataError


def hold_out(images: ImageData, *, share: float) -> ImageData:
    """Move a share of the training images to validation, of each class alike, none wholly.

    By content hash, or by group where images have groups: the same images whatever else changes.

    Raises:
        DataError: there are too few images to hold any out.
    """
    train = images.splits["train"]
    shares = file_shares(images.listing, images.findings)
    names = images.listing.store.names
    places = group_shares(names) if shares is None else shares
    # The first bits tell how unsplit data was split.
    folds = stratified_folds(
        other_shares(places)[train.numbers], train.labels, folds=max(2, round(1 / share))
    )
    held_out, rest = np.flatnonzero(folds == 0), np.flatnonzero(folds)
    if not len(held_out) or not len(rest):
        raise DataError(
            f"{images.source} has {len(train):,} training images, of which no {share:.0%} can be "
            "held out: give more, or a validation split of their own"
        )
    splits = images.splits | {"train": train.select(rest), "validation": train.select(held_out)}
    return dataclasses.replace(images, splits=splits)


def all_for_training(images: ImageData) -> ImageData:
    """Return the data with its validation images among the training ones."""
    train, further = images.splits["train"], images.splits.get("validation")
    if further is None:
        return images
    splits = images.splits | {
        "train": dataclasses.replace(
            train,
            numbers=np.concatenate([train.numbers, further.numbers]),
            labels=np.concatenate([train.labels, further.labels]),
        )
    }
    del splits["validation"]
    return dataclasses.replace(images, splits=splits)


def without_split(images: ImageData, split: str) -> ImageData:
    """Return the data without a split, so that nothing can look at it."""
    splits = {name: own for name, own in images.splits.items() if name != split}
    return dataclasses.replace(images, splits=splits)


def find_overlap(images: ImageData, *, split: str = "test") -> list[tuple[str, str]]:
    """Return the images of a split that are training images too, by content: their two names.

    Empty where files have not been read, which is above 200,000 of them.
    """
    if split not in images.splits or "train" not in images.splits:
        return []
    train, scored = images.splits["train"], images.splits[split]
    trained = {images.findings[n].digest: n for n in train.numbers.tolist()}
    trained.pop("", None)
    names = images.listing.store.names
    return [
        (names[number], names[trained[digest]])
        for number in scored.numbers.tolist()
        if (digest := images.findings[number].digest) in trained
    ]


def check_overlap(images: ImageData, *, split: str = "test") -> None:
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
