"""Images that lie whole within larger files, read at their offsets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitral.data.stores.folder import file_stamp
from vitral.data.stores.store import Content


class PieceStore:
    """Pieces of files."""

    def __init__(self, paths: Sequence[Path], places: np.ndarray, *, names: Sequence[str]) -> None:
        """Take pieces.

        Args:
            paths: of the files.
            places: (N, 3), int64: the number of the file, the offset in it, and how many bytes.
            names: of the N pieces.
        """
        self._paths, self._places, self.names = paths, places, names
        self._stamps = [file_stamp(path) for path in paths]

    def read(self, number: int) -> Content:
        """Return a piece's bytes."""
        which, offset, size = self._places[number].tolist()
        with self._paths[which].open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def stamp(self, number: int) -> str | None:
        """Return the file's size and time of change, and the place of the piece."""
        which, offset, _ = self._places[number].tolist()
        return f"{self._stamps[which]}-{offset}"

    def blocks(self) -> np.ndarray | None:
        """Each piece is read by itself."""
        return None
