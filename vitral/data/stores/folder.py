"""Files below a folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitral.data.stores.store import Content


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
