"""Which examples are for training, which for validation and which for the test.

Without splits of the source, each image goes by its own content hash, so that adding images moves
none and copies stay together.
"""

from collections.abc import Sequence

import numpy as np

TRAIN_BELOW, VALIDATION_BELOW = 0.8, 0.9


def hash_shares(digests: Sequence[str]) -> np.ndarray:
    """Return the place of each content hash in [0, 1), uniform over contents."""
    return np.array([int(digest[:13], 16) / 16**13 for digest in digests])


def split_by_hash(shares: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Split examples by their hashes: below 0.8 train, below 0.9 validation, else test.

    A class left without a train or test image gets the one with the nearest hash; one that has a
    single content keeps it for training.

    Args:
        shares: (N,), from `hash_shares`.
        labels: (N,), class numbers.

    Returns:
        (N,) of "train", "validation", "test".
    """
    splits = np.select(
        [shares < TRAIN_BELOW, shares < VALIDATION_BELOW], ["train", "validation"], "test"
    )
    splits = splits.astype("<U10")
    for label in np.unique(labels):
        own = shares[labels == label]
        if not (own < TRAIN_BELOW).any():
            splits[(labels == label) & (shares == own.min())] = "train"
        if not (own >= VALIDATION_BELOW).any() and own.max() > own.min():
            splits[(labels == label) & (shares == own.max())] = "test"
    return splits


def hold_out_by_hash(shares: np.ndarray, labels: np.ndarray, *, share: float) -> np.ndarray:
    """Say which training examples become validation: those of low hashes, never a whole class.

    Args:
        shares: (N,), from `hash_shares`.
        labels: (N,), class numbers.
        share: of the examples, about.

    Returns:
        (N,) bool.
    """
    held_out = shares < share
    for label in np.unique(labels):
        if held_out[labels == label].all():
            held_out &= labels != label
    return held_out
