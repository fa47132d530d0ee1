"""What every store offers, and stores made of others."""

import bisect
import itertools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

Content = bytes | np.ndarray
"""A file's bytes, or pixels (H, W, C)."""


class Store(Protocol):
    """Images by number."""

    names: Sequence[str]

    def read(self, number: int) -> Content:
        """Return a file's bytes, or pixels (H, W, C). Raises OSError."""
        ...

    def stamp(self, number: int) -> str | None:
        """Return what changes when the content does, such as size and time; None: not known."""
        ...

    def blocks(self) -> np.ndarray | None:
        """Return which files are read together, (N,) int64 block numbers; None: each by itself."""
        ...


class JoinedStore:
    """Several stores, one after the other; names carry a prefix each."""

    def __init__(self, stores: Sequence[Store], prefixes: Sequence[str]) -> None:
        self._stores = stores
        self._starts = [0, *itertools.accumulate(len(store.names) for store in stores)]
        self.names: Sequence[str] = [
            prefix + name
            for store, prefix in zip(stores, prefixes, strict=True)
            for name in store.names
        ]

    def read(self, number: int) -> Content:
        """Return a file's bytes."""
        store, inner = self._find(number)
        return store.read(inner)

    def stamp(self, number: int) -> str | None:
        """Return what changes when the content does."""
        store, inner = self._find(number)
        return store.stamp(inner)

    def blocks(self) -> np.ndarray | None:
        """Return which files are read together; None: each by itself."""
        parts = [store.blocks() for store in self._stores]
        if all(part is None for part in parts):
            return None
        # A file that is read by itself is a block of its own.
        whole = [
            np.arange(len(store.names)) if part is None else part
            for store, part in zip(self._stores, parts, strict=True)
        ]
        counts = [int(part.max()) + 1 if len(part) else 0 for part in whole]
        firsts = itertools.accumulate(counts, initial=0)
        return np.concatenate([part + first for part, first in zip(whole, firsts, strict=False)])

    def _find(self, number: int) -> tuple[Store, int]:
        which = bisect.bisect_right(self._starts, number) - 1
        return self._stores[which], number - self._starts[which]


class SelectedStore:
    """Some files of a store, renumbered; also files that are wanted and not there."""

    def __init__(
        self, store: Store, numbers: Sequence[int], *, names: Sequence[str] | None = None
    ) -> None:
        """Select files.

        Args:
            store: of all files.
            numbers: in it, in the new order; -1 for a file that is not there.
            names: of the files; None: as in the store.
        """
        self._store = store
        self._numbers = np.asarray(numbers, np.int64)
        self.names: Sequence[str] = (
            [store.names[number] for number in numbers] if names is None else names
        )

    def read(self, number: int) -> Content:
        """Return a file's content."""
        inner = int(self._numbers[number])
        if inner < 0:
            raise FileNotFoundError("there is no such file")
        return self._store.read(inner)

    def stamp(self, number: int) -> str | None:
        """Return what changes when the content does."""
        inner = int(self._numbers[number])
        return self._store.stamp(inner) if inner >= 0 else None

    def blocks(self) -> np.ndarray | None:
        """Return which files are read together; None: each by itself."""
        blocks = self._store.blocks()
        if blocks is None:
            return None
        absent = self._numbers < 0
        return np.where(absent, blocks.max(initial=0) + 1, blocks[self._numbers])
