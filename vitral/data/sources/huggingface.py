"""Folders that Hugging Face's `datasets` has written, read by that library, which is an extra."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.sources.listing import SPLIT_NAMES, Listing, join_listings
from vitral.data.sources.lists import LABEL_COLUMNS, STATED_COLUMNS, class_namer, take_rows
from vitral.data.sources.store import Content
from vitral.errors import DataError, RequestError

_MARKER_FILES = ({"dataset_dict.json"}, {"dataset_info.json", "state.json"})
"""Files of a folder of splits, and of a folder of rows."""


def is_saved_dataset(folder: Path) -> bool:
    """Return whether a folder was written by `save_to_disk`."""
    return any(all((folder / name).is_file() for name in names) for names in _MARKER_FILES)


def list_saved_dataset(folder: Path) -> Listing:
    """List the rows of a data set, or of all its splits.

    Raises:
        RequestError: `datasets` is not installed.
        DataError: it can't be read, or has no column of images or labels.
    """
    try:
        import datasets
    except ImportError:
        raise RequestError(
            f"{folder} was written by Hugging Face datasets: pip install 'vitral[hf]'"
        ) from None
    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} can't be read: {error}") from None
    source = str(folder.resolve())
    if not isinstance(loaded, dict):
        return _list_rows(loaded, source=source, split=None)
    unknown = [name for name in loaded if name.lower() not in SPLIT_NAMES]
    if unknown:
        raise DataError(f"{folder} has a split {unknown[0]!r}: name it train, validation or test")
    parts = [
        _list_rows(rows, source=source, split=SPLIT_NAMES[name.lower()])
        for name, rows in loaded.items()
    ]
    return join_listings(
        parts, [f"{name}/" for name in loaded], source=source, classes=parts[0].classes
    )


class RowsStore:
    """The images of a data set, as their files' bytes."""

    def __init__(self, rows: Any, column: str) -> None:
        import datasets

        self._rows = rows.cast_column(column, datasets.Image(decode=False)).select_columns([column])
        self._column = column
        chunks = [chunk for array in self._rows.data.columns for chunk in array.chunks]
        self._has_all_bytes = not any(chunk.field("bytes").null_count for chunk in chunks)
        self.names: Sequence[str] = [str(index) for index in range(len(rows))]

    def read(self, number: int) -> Content:
        """Return an image's bytes."""
        cell = self._rows[number][self._column]
        if not cell:
            raise OSError("the row has no image")
        content: bytes = cell["bytes"] or Path(cell["path"]).read_bytes()
        return content

    def stamp(self, number: int) -> str | None:
        """The library's fingerprint of a data set does not cover files outside of it."""
        return str(self._rows._fingerprint) if self._has_all_bytes else None

    def blocks(self) -> np.ndarray | None:
        """Each row is read by itself."""
        return None


def _list_rows(rows: Any, *, source: str, split: str | None) -> Listing:
    import datasets

    features = rows.features
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    if not images:
        raise DataError(f"{source} has no column of images: it has {', '.join(features)}")
    column = next((name for name in LABEL_COLUMNS if name in features), None)
    feature = features.get(column)
    names = getattr(getattr(feature, "feature", feature), "names", None)
    classes = tuple(map(str, names)) if names else None
    wanted = [name for name in STATED_COLUMNS if name in features]
    table = rows.select_columns(wanted) if wanted else rows
    taken = take_rows(
        table,
        columns=wanted,
        where=source,
        needs_path=False,
        first_line=0,
        class_name=class_namer(classes),
    )
    if split:
        taken.splits = [split] * len(taken.names)
    return taken.listing(source, taken.of(RowsStore(rows, images[0])), classes=classes)
