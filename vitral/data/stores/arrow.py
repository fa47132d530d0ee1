"""Images in the rows of Parquet and Arrow files."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vitral.data.stores.folder import file_stamp
from vitral.data.stores.store import Content
from vitral.errors import DataError
from vitral.files.arrow import import_pyarrow

# A Parquet row group must be read as a whole; these are kept, since rows near each other are
# wanted near each other.
_GROUPS_KEPT = 8


class _Cells(Protocol):
    """The cells of one column of one file."""

    block_sizes: list[int]
    """Rows that are read together."""

    def cell(self, block: int, row: int) -> Any:
        """Return a cell, by block and by row within it."""
        ...


class TableStore:
    """The image column of files of one schema, one after the other."""

    def __init__(self, paths: Sequence[Path], column: str, *, names: Sequence[str]) -> None:
        """Open the files.

        Args:
            paths: `.parquet` or `.arrow` files.
            column: of bytes, of paths relative to the file, or of both.
            names: of all rows.

        Raises:
            DataError: a file is damaged.
        """
        self.names = names
        self._paths = paths
        self._files = [open_cells(path, column) for path in paths]
        sizes = [size for own in self._files for size in own.block_sizes]
        self._places = [
            (file, block)
            for file, own in enumerate(self._files)
            for block in range(len(own.block_sizes))
        ]
        self.block_starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._stamps = [file_stamp(path) for path in paths]

    def read(self, number: int) -> Content:
        """Return an image's bytes."""
        file, block, row = self._find(number)
        cell = self._files[file].cell(block, row)
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            return cell
        if not cell:
            raise OSError("the row has no image")
        return (self._paths[file].parent / str(cell)).read_bytes()

    def stamp(self, number: int) -> str | None:
        """Return the file's size and time of change, and the place in it.

        Rows are numbered over all files, so a number alone may come to mean another row.
        """
        file, block, row = self._find(number)
        return f"{self._stamps[file]}-{block}-{row}"

    def _find(self, number: int) -> tuple[int, int, int]:
        which = int(np.searchsorted(self.block_starts, number, side="right")) - 1
        return *self._places[which], number - int(self.block_starts[which])


class _ParquetCells:
    """A column of a Parquet file; a row group is read when one of its rows is wanted."""

    def __init__(self, path: Path, column: str) -> None:
        self._file = import_pyarrow("pyarrow.parquet").ParquetFile(path)
        self._column = column
        metadata = self._file.metadata
        self.block_sizes = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def cell(self, block: int, row: int) -> Any:
        """Return a cell."""
        with self._lock:
            if block not in self._kept:
                table = self._file.read_row_group(block, columns=[self._column])
                self._kept[block] = table.column(0)
                if len(self._kept) > _GROUPS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(block)
            values = self._kept[block]
        return values[row].as_py()


class _ArrowCells:
    """A column of an Arrow file, mapped into memory."""

    def __init__(self, path: Path, column: str) -> None:
        pyarrow = import_pyarrow()
        values = open_arrow(pyarrow, path).column(column)
        self._chunks = values.chunks
        self.block_sizes = [len(chunk) for chunk in self._chunks]

    def cell(self, block: int, row: int) -> Any:
        """Return a cell."""
        return self._chunks[block][row].as_py()


def open_cells(path: Path, column: str) -> _Cells:
    """Open a column of a file.

    Raises:
        DataError: the file is damaged.
    """
    try:
        return (_ParquetCells if is_parquet(path) else _ArrowCells)(path, column)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} can't be read: {error}") from None


def open_arrow(pyarrow: Any, path: Path) -> Any:
    """Map an Arrow file into memory as a table; both of its forms are read: file and stream."""
    source = pyarrow.memory_map(str(path))
    try:
        return pyarrow.ipc.open_file(source).read_all()
    except pyarrow.ArrowInvalid:
        source.seek(0)
        return pyarrow.ipc.open_stream(source).read_all()


def is_parquet(path: Path) -> bool:
    """Say whether a file is Parquet by its name."""
    return path.suffix.lower() == ".parquet"
