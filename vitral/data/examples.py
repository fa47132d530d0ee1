"""The examples of a split: where their images are, and what they are labelled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vitral.data.sources.listing import FileInfo
from vitral.data.sources.store import Content, Store, Targets


@dataclass(frozen=True)
class Examples:
    """The examples of one split: files of a store with their labels."""

    store: Store
    file_ids: np.ndarray
    """(N,) int64: the index of each example's file in the store."""
    labels: np.ndarray
    """(N,) int64, -1 where there are no classes; where images have any number of them (N, K) uint8
    of 0 and 1."""
    file_infos: Sequence[FileInfo] | None = None
    """Facts about the files, by index in the store; None: not surveyed."""
    targets: Mapping[str, Targets] = field(default_factory=dict)
    """What they have besides a class, by kind and index in the store."""

    def __len__(self) -> int:
        return len(self.file_ids)

    def read(self, index: int) -> Content:
        """Return the bytes or pixels of example `index`. Raises OSError."""
        return self.store.read(int(self.file_ids[index]))

    def name(self, index: int) -> str:
        """Return the path of example `index` within its source."""
        return self.store.names[int(self.file_ids[index])]

    def target(self, kind: str, index: int) -> np.ndarray:
        """Return the target of example `index`. Raises DataError."""
        return self.targets[kind].read(int(self.file_ids[index]))

    def blocks(self) -> np.ndarray | None:
        """Return which examples are read together, (N,) int64; None: each by itself."""
        blocks = self.store.blocks()
        return None if blocks is None else blocks[self.file_ids]

    def select(self, indices: np.ndarray) -> "Examples":
        """Return some of the examples, in the given order."""
        return replace(self, file_ids=self.file_ids[indices], labels=self.labels[indices])
