"""Parquet and Arrow files, by pyarrow, which is an extra."""

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
        where: the file, for errors.
        columns: to be read; None: all.

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


def import_pyarrow(name: str = "pyarrow") -> ModuleType:
    """Import pyarrow or a part of it.

    Raises:
        RequestError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise RequestError("Parquet and Arrow need pyarrow: pip install 'vitral[arrow]'") from None
