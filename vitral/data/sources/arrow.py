"""Tables with images in their rows, read a block at a time: Parquet and Arrow files."""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vitral.data.order import WINDOW
from vitral.data.sources.listing import Listing
from vitral.data.sources.lists import (
    LABEL_COLUMNS,
    STATED_COLUMNS,
    class_namer,
    list_file,
    take_rows,
)
from vitral.data.sources.store import Content, file_stamp
from vitral.errors import DataError, RequestError
from vitral.files.optional import ArrowFile, import_pyarrow, read_parquet_rows

# Blocks of two windows of the order are in use where one ends and the next begins.
_ROWS_KEPT = 2 * WINDOW
_BLOCKS_KEPT = 4


class _Table(Protocol):
    """One column of one file."""

    block_sizes: list[int]
    """Rows that are read together."""
    names_files: bool
    """Whether a row may name a file instead of holding the image."""

    def read_block(self, block: int) -> Any:
        """Return a block's cells."""
        ...


@dataclass
class _Block:
    """Cells, once a thread has read them."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    cells: Any = None


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
        self._tables = [_open_table(path, column) for path in paths]
        self._places = [
            (file, block)
            for file, table in enumerate(self._tables)
            for block in range(len(table.block_sizes))
        ]
        sizes = [size for table in self._tables for size in table.block_sizes]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._stamps = [file_stamp(path) for path in paths]
        self._cached: OrderedDict[int, _Block] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, number: int) -> Content:
        """Return an image's bytes."""
        block, row = self._find(number)
        cell = self._cells(block)[row].as_py()
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            return cell
        if not cell:
            raise OSError("the row has no image")
        file, _ = self._places[block]
        return (self._paths[file].parent / str(cell)).read_bytes()

    def stamp(self, number: int) -> str | None:
        """Return the file's size and time of change, and the position in it.

        Rows are numbered over all files, so a number alone may come to mean another row. None
        where rows may name files, whose changes do not change the table's stamp.
        """
        index, row = self._find(number)
        file, block = self._places[index]
        return None if self._tables[file].names_files else f"{self._stamps[file]}-{block}-{row}"

    def blocks(self) -> np.ndarray | None:
        """Return the block of each row."""
        return np.repeat(np.arange(len(self._places)), np.diff(self._starts))

    def _find(self, number: int) -> tuple[int, int]:
        block = int(np.searchsorted(self._starts, number, side="right")) - 1
        return block, number - int(self._starts[block])

    def _cells(self, index: int) -> Any:
        """Return a block's cells; the blocks used last are cached, each read by one thread."""
        with self._lock:
            block = self._cached.setdefault(index, _Block())
            self._cached.move_to_end(index)
            while len(self._cached) > _BLOCKS_KEPT and self._rows_cached() > _ROWS_KEPT:
                self._cached.popitem(last=False)
        with block.lock:
            if block.cells is None:
                file, inner = self._places[index]
                block.cells = self._tables[file].read_block(inner)
            return block.cells

    def _rows_cached(self) -> int:
        return sum(int(self._starts[index + 1] - self._starts[index]) for index in self._cached)


class _ParquetTable:
    """A column of a Parquet file, whose blocks are its row groups."""

    def __init__(self, path: Path, column: str) -> None:
        self._path, self._column = path, column
        self._metadata = import_pyarrow("pyarrow.parquet").read_metadata(path)
        groups = [self._metadata.row_group(index) for index in range(self._metadata.num_row_groups)]
        self.block_sizes = [group.num_rows for group in groups]
        self.names_files = any(_may_lack_bytes(group, column) for group in groups)

    def read_block(self, block: int) -> Any:
        """Read a row group; the file is opened for each, since there may be thousands of files."""
        parquet = import_pyarrow("pyarrow.parquet")
        with parquet.ParquetFile(self._path, metadata=self._metadata) as file:
            return file.read_row_group(block, columns=[self._column]).column(0)


class _ArrowTable:
    """A column of an Arrow file, whose blocks are its batches."""

    def __init__(self, path: Path, column: str) -> None:
        self._file, self._column = ArrowFile(path), column
        self.block_sizes = self._file.batch_sizes(heavy=column)
        self.names_files = _has_paths(self._file.schema.field(column).type)

    def read_block(self, block: int) -> Any:
        """Read a batch."""
        return self._file.read_batch(block, self._column)


def _open_table(path: Path, column: str) -> _Table:
    try:
        return (_ParquetTable if is_parquet(path) else _ArrowTable)(path, column)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} can't be read: {error}") from None


def _may_lack_bytes(group: Any, column: str) -> bool:
    """Return whether rows of a Parquet row group may have the path of a file and no bytes."""
    parts = {
        group.column(index).path_in_schema: group.column(index)
        for index in range(group.num_columns)
    }
    if f"{column}.path" not in parts:
        return False
    statistics = parts[f"{column}.bytes"].statistics
    return statistics is None or not statistics.has_null_count or statistics.null_count > 0


def _has_paths(kind: Any) -> bool:
    is_struct = import_pyarrow().types.is_struct(kind)
    return bool(is_struct and kind.get_field_index("path") >= 0)


def is_parquet(path: Path) -> bool:
    """Return whether a file is Parquet by its name."""
    return path.suffix.lower() == ".parquet"


TABLE_SUFFIXES = (".parquet", ".arrow", ".feather")


def list_table(path: Path) -> Listing:
    """List the rows of a table: of images, or of paths where it has no column of images.

    Raises:
        DataError: it can't be read, or a column is missing.
    """
    schema = _schema(path)
    if _image_column(schema) is None and is_parquet(path):
        return list_file(path)
    return list_tables([path], source=str(path.resolve()), splits=[None])


def list_tables(paths: Sequence[Path], *, source: str, splits: Sequence[str | None]) -> Listing:
    """List the rows of several tables of one schema, one after the other.

    Args:
        paths: of the files.
        source: that they are.
        splits: of each file; None where the file does not say.

    Raises:
        DataError: one can't be read, or has other columns than the first.
    """
    schema = _schema(paths[0])
    image = _image_column(schema)
    if image is None:
        raise DataError(
            f"{paths[0]} has no column of images (bytes, or bytes and path): "
            f"it has {', '.join(schema.names)}"
        )
    wanted = [name for name in schema.names if name in STATED_COLUMNS]
    rows: list[Mapping[str, Any]] = []
    for path, split in zip(paths, splits, strict=True):
        file_schema = _schema(path)
        if not {image, *wanted} <= set(file_schema.names):
            raise DataError(
                f"{path} has other columns than {paths[0]}: {', '.join(file_schema.names)}"
            )
        read = _read_columns(path, wanted)
        rows += [{**row, "split": split} for row in read] if split else read
    classes = _class_names(schema)
    taken = take_rows(
        rows,
        columns=[*wanted, "split"],
        where=source,
        needs_path=False,
        first_line=0,
        class_name=class_namer(classes),
    )
    store = TableStore(paths, image, names=[str(index) for index in range(len(rows))])
    return taken.listing(source, taken.of(store), classes=classes)


def holds_examples(path: Path) -> bool:
    """Return whether a table can be read and has images and labels."""
    try:
        schema = _schema(path)
    except (DataError, RequestError):
        return False
    return _image_column(schema) is not None and not {*LABEL_COLUMNS}.isdisjoint(schema.names)


def _schema(path: Path) -> Any:
    try:
        if is_parquet(path):
            return import_pyarrow("pyarrow.parquet").read_schema(path)
        return ArrowFile(path).schema
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}") from None


def _read_columns(path: Path, columns: list[str]) -> Sequence[Mapping[str, Any]]:
    if is_parquet(path):
        return read_parquet_rows(path, where=str(path), columns=columns)[1]
    try:
        return ArrowFile(path).rows(columns)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}") from None


def _image_column(schema: Any) -> str | None:
    """Return the column of bytes, or of a struct with bytes; one called image comes first."""
    types = import_pyarrow().types
    found = [
        field.name
        for field in schema
        if types.is_binary(field.type)
        or types.is_large_binary(field.type)
        or (types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
    ]
    preferred = [name for name in found if name in ("image", "img", "jpg")]
    return next(iter([*preferred, *found]), None)


def _class_names(schema: Any) -> tuple[str, ...] | None:
    """Return the class names from the description that Hugging Face writes into the schema."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        feature = features.get("label") or features["labels"]
        return tuple(str(name) for name in feature.get("feature", feature)["names"])
    except (KeyError, TypeError, ValueError):
        return None
