"""Which examples are for training, which for validation and which for the test.

Without splits of the source, each image goes by its own content hash, so that adding images moves
none and copies stay together; or by the hash of its group, where images of a group belong together.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from vitral.data.labels import members_by_class, rarest_class

TRAIN_BELOW, VALIDATION_BELOW = 0.8, 0.9


def hash_shares(digests: Sequence[str]) -> np.ndarray:
    """Return the place of each content hash in [0, 1), uniform over contents."""
    return np.array([int(digest[:13], 16) / 16**13 for digest in digests])


def group_shares(groups: Sequence[str]) -> np.ndarray:
    """Return the place of each group in [0, 1), uniform over groups."""
    return hash_shares([hashlib.sha256(group.encode()).hexdigest() for group in groups])


def other_shares(shares: np.ndarray) -> np.ndarray:
    """Return other places in [0, 1) of the same contents, of which the first tell nothing."""
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
            own = shares[members]
            if (splits[members] == wanted).any() or (wanted == "test" and own.max() == own.min()):
                continue
            nearest = shares == (own.max() if wanted == "test" else own.min())
            splits[nearest if grouped else nearest & members] = wanted
    return splits


def stratified_folds(shares: np.ndarray, labels: np.ndarray, *, folds: int) -> np.ndarray:
    """Return the fold (N,) of each example: of each class every fold gets a like number.

    The examples of a class are in the order of their hashes, of which each fold gets a stretch: so
    an example that is added moves one other at most from each fold to the next. Equal hashes, a
    content or a group, stay together, and count for the class that most of them have; of several
    classes an image counts for its rarest.

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
    """Say which training examples become validation: those of low hashes, never a whole class.

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
