"""What every store of images offers; files below a folder; stores made of others."""

import bisect
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vitral.errors import DataError

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
        index = bisect.bisect_right(self._starts, number) - 1
        return self._stores[index], number - self._starts[index]


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
            [store.names[file_id] for file_id in numbers] if names is None else names
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


class FolderStore:
    """Files below a folder, by relative path."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root = root
        self.names = names

    def read(self, number: int) -> Content:
        """Return a file's bytes."""
        return (self.root / self.names[number]).read_bytes()

    def stamp(self, number: int) -> str | None:
        """Return the file's size and time of change."""
        try:
            return file_stamp(self.root / self.names[number])
        except OSError:
            return None

    def blocks(self) -> np.ndarray | None:
        """Each file is read by itself."""
        return None


def file_stamp(path: Path) -> str:
    """Return a file's size and time of change as text; raises OSError where there is none."""
    stat = path.stat()
    return f"{stat.st_size}-{stat.st_mtime_ns}"


class Texts(Sequence[str]):
    """Many texts as one array of bytes, each decoded when it is accessed."""

    def __init__(self, content: np.ndarray, ends: np.ndarray) -> None:
        """Hold the bytes (B,) uint8 of all texts, and where each one ends (N,) int64."""
        self.content, self.ends = content, ends

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Texts":
        """Put texts into one array; file names may be no valid text."""
        parts = [text.encode(errors="surrogateescape") for text in texts]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(np.frombuffer(b"".join(parts), np.uint8), ends)

    @classmethod
    def joined(cls, parts: Sequence["Texts"]) -> "Texts":
        """Concatenate several."""
        firsts = np.cumsum([0, *(len(part.content) for part in parts)])
        ends = [part.ends + first for part, first in zip(parts, firsts, strict=False)]
        return cls(np.concatenate([part.content for part in parts]), np.concatenate(ends))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        first = int(self.ends[index - 1]) if index else 0
        content = self.content[first : int(self.ends[index])].tobytes()
        return content.decode(errors="surrogateescape")


class Targets(Protocol):
    """Targets of one kind, by the index of the file that they belong to."""

    def read(self, number: int) -> np.ndarray:
        """Return a file's target: (values,) float32, or a map (H, W) uint8. Raises DataError."""
        ...

    def digest(self, number: int) -> str:
        """Return a hash of it."""
        ...


class ObjectTargets:
    """The targets of an object with [i] -> (image, target)."""

    def __init__(self, examples: Any, kind: str) -> None:
        """Wrap an object.

        Args:
            examples: sized, with [i].
            kind: of `data.needs.TARGETS`.
        """
        self._examples, self._as_kind = examples, {"value": as_values, "mask": as_mask}[kind]

    def read(self, number: int) -> np.ndarray:
        """Return a file's target."""
        return self._as_kind(self._examples[number][1], number=number)

    def digest(self, number: int) -> str:
        """Return a hash of it."""
        return hashlib.sha256(np.ascontiguousarray(self.read(number)).tobytes()).hexdigest()


def as_values(target: Any, *, number: int) -> np.ndarray:
    """Return a number, or several in a row, as (values,) float32.

    Raises:
        DataError: it is none, or not finite.
    """
    try:
        values = np.atleast_1d(np.asarray(target, np.float32))
    except (TypeError, ValueError):
        values = np.zeros((0, 0), np.float32)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise DataError(
            f"target {target!r} of example {number}: give a finite number, or several in a row"
        )
    return values


def as_mask(target: Any, *, number: int) -> np.ndarray:
    """Return a map of whole numbers in 0..255 as (H, W) uint8.

    Raises:
        DataError: it is none.
    """
    mask = np.asarray(target)
    if mask.ndim != 2 or mask.dtype.kind not in "iub" or not mask.size:
        raise DataError(
            f"the mask of example {number} is of type {mask.dtype} and shape {mask.shape}: give "
            "(H, W) of whole numbers"
        )
    if mask.min() < 0 or mask.max() > 255:
        raise DataError(
            f"the mask of example {number} has values from {mask.min()} to {mask.max()}: give "
            "0..255, of which 255 counts for nothing"
        )
    return mask.astype(np.uint8)
