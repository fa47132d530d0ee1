"""Files that need optional packages: Parquet and Arrow (pyarrow), MATLAB (scipy), HDF5 (h5py)."""

import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from vitral.errors import DataError, RequestError


def read_parquet_rows(
    content: bytes | Path, *, where: str, columns: Sequence[str] | None = None
) -> tuple[list[str], list[Mapping[str, Any]]]:
    """Return the column names and the rows of a Parquet file.

    Args:
        content: bytes, or the path of a file.
        where: the file's name for error messages.
        columns: to read; None: all.

    Raises:
        DataError: it is damaged.
        RequestError: pyarrow is not installed.
    """
    parquet = import_pyarrow("pyarrow.parquet")
    try:
        source = io.BytesIO(content) if isinstance(content, bytes) else content
        table = parquet.read_table(source, columns=columns)
    except (OSError, ValueError) as error:
        raise DataError(f"{where} can't be read as Parquet: {error}") from None
    return table.column_names, table.to_pylist()


class ArrowFile:
    """A memory-mapped Arrow file, in the file or the stream format."""

    def __init__(self, path: Path) -> None:
        pyarrow = import_pyarrow()
        self._source = pyarrow.memory_map(str(path))
        try:
            self._reader = pyarrow.ipc.open_file(self._source)
            self.schema = self._reader.schema
            self._batches = None
        except pyarrow.ArrowInvalid:
            self._source.seek(0)
            table = pyarrow.ipc.open_stream(self._source).read_all()
            self.schema, self._batches = table.schema, table.to_batches()

    def batch_sizes(self, *, heavy: str) -> list[int]:
        """Return the number of rows of each batch, without unpacking the column `heavy`."""
        light = next((name for name in self.schema.names if name != heavy), heavy)
        return [batch.num_rows for batch in self._select([light])]

    def read_batch(self, number: int, column: str) -> Any:
        """Return the cells of one column of one batch."""
        batch = self._batches[number] if self._batches else self._reader.get_batch(number)
        return batch.column(column)

    def rows(self, columns: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return some columns as rows, without unpacking the others."""
        return [row for batch in self._select(columns) for row in batch.to_pylist()]

    def _select(self, columns: Sequence[str]) -> list[Any]:
        if self._batches is not None:
            return [batch.select(columns) for batch in self._batches]
        ipc = import_pyarrow("pyarrow.ipc")
        indices = [self.schema.get_field_index(name) for name in columns]
        reader = ipc.open_file(self._source, options=ipc.IpcReadOptions(included_fields=indices))
        batches = map(reader.get_batch, range(reader.num_record_batches))
        return [batch.select(columns) for batch in batches]


def import_pyarrow(name: str = "pyarrow") -> ModuleType:
    """Import pyarrow or one of its modules.

    Raises:
        RequestError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise RequestError("Parquet and Arrow need pyarrow: pip install 'vitral[arrow]'") from None


def read_mat(content: bytes, *, where: str) -> dict[str, Any]:
    """Return the variables of a MATLAB file of version 5.

    Raises:
        DataError: it is damaged.
        RequestError: scipy is not installed.
    """
    matlab = import_science("scipy.io")
    try:
        variables: dict[str, Any] = matlab.loadmat(io.BytesIO(content), squeeze_me=True)
    except Exception as error:  # scipy's parser raises many types
        raise DataError(f"{where} can't be read as a MATLAB file: {error!r}") from None
    return variables


def import_science(name: str) -> ModuleType:
    """Import scipy.io or h5py.

    Raises:
        RequestError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        library = name.partition(".")[0]
        raise RequestError(
            f"this data set's files need {library}: pip install 'vitral[vtab]'"
        ) from None
