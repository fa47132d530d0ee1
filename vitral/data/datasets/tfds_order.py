"""The order in which TensorFlow Datasets stores examples, on which VTAB's splits rest.

Each example has a key; those of a split are sorted by the MD5 of the split's name and the key. So
"the first 800 of train" can be told from the publisher's files alone.

Source: TensorFlow Datasets, `core/hashing.py` and `core/shuffle.py`, the same from 1.2.0 to 4.9.10.
"""

import hashlib
from collections.abc import Sequence

import numpy as np


def tfds_order(split: str, keys: Sequence[str]) -> np.ndarray:
    """Return the numbers (N,) int64 of the examples in the stored order.

    Args:
        split: as TensorFlow Datasets calls it, such as "train" or "validation".
        keys: of the N examples: a file's name, or a number as text, by data set.
    """
    digests = [hashlib.md5(f"{split}{key}".encode()).digest() for key in keys]
    return np.array(sorted(range(len(keys)), key=digests.__getitem__), np.int64)


def share_of(count: int, percent: int) -> int:
    """Return where `[:percent%]` ends among `count` examples: to the nearest, halves to even."""
    return round(percent * count / 100)
