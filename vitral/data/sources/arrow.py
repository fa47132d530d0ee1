"""Tables with images in their rows: Parquet and Arrow files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitral.data.sources.listing import Listing
from vitral.data.sources.lists import list_file
from vitral.data.sources.rows import LABEL_COLUMNS, STATED_COLUMNS, class_namer, take_rows
from vitral.data.stores.arrow import TableStore, is_parquet
from vitral.errors import DataError, RequestError
from vitral.files.arrow import ArrowFile, import_pyarrow, read_parquet_rows

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
        own = _schema(path)
        if not {image, *wanted} <= set(own.names):
            raise DataError(f"{path} has other columns than {paths[0]}: {', '.join(own.names)}")
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
    store = TableStore(paths, image, names=[str(number) for number in range(len(rows))])
    return taken.listing(source, taken.of(store), classes=classes)


def holds_examples(path: Path) -> bool:
    """Say whether a table can be read and has images and labels."""
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
    """Return the column of bytes, or of a record with bytes; the one called image before others."""
    types = import_pyarrow().types
    found = [
        field.name
        for field in schema
        if types.is_binary(field.type)
        or types.is_large_binary(field.type)
        or (types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
    ]
    usual = [name for name in found if name in ("image", "img", "jpg")]
    return next(iter([*usual, *found]), None)


def _class_names(schema: Any) -> tuple[str, ...] | None:
    """Return what numbers stand for, from the description that Hugging Face writes beside."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        feature = features.get("label") or features["labels"]
        return tuple(str(name) for name in feature.get("feature", feature)["names"])
    except (KeyError, TypeError, ValueError):
        return None
