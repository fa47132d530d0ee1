"""Images that are decoded once and kept in memory, where all of them fit."""

from collections.abc import Iterable, Sequence

import numpy as np

from vitral.data.decode import decode_image
from vitral.data.sources.listing import FileInfo
from vitral.data.sources.store import Content, Store


class DecodedStore:
    """The pixels of a store's images, each decoded when it is first read and kept from then on."""

    def __init__(self, store: Store, *, channels: int) -> None:
        self._store, self._channels = store, channels
        self.names: Sequence[str] = store.names
        self._cached: dict[int, np.ndarray] = {}

    def read(self, number: int) -> Content:
        """Return an image's pixels; raises what reading and decoding raise."""
        pixels = self._cached.get(number)
        if pixels is None:
            content = self._store.read(number)
            if not isinstance(content, bytes):
                return content
            # A rotated image is a view into memory of another order.
            pixels = np.ascontiguousarray(decode_image(content, channels=self._channels))
            self._cached[number] = pixels
        return pixels

    def stamp(self, number: int) -> str | None:
        """Return what changes when the content does."""
        return self._store.stamp(number)

    def blocks(self) -> np.ndarray | None:
        """Return which files are read together."""
        return self._store.blocks()


def decoded_bytes(file_infos: Iterable[FileInfo], *, channels: int) -> int | None:
    """Return the bytes of all images when they are decoded; None where a size is not known.

    Images that are pixels already take no more than they do.
    """
    total = 0
    for file_info in file_infos:
        if not file_info.height:
            return None
        if file_info.format != "array":
            pixels = file_info.height * file_info.width * channels
            total += pixels * np.dtype(file_info.depth).itemsize
    return total
