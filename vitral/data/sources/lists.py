"""Lists of files with their classes."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitral.data.sources.listing import SPLIT_NAMES, Listing, Skipped
from vitral.data.stores.folder import FolderStore
from vitral.errors import DataError


def list_csv(path: Path) -> Listing:
    """List the rows of a CSV of path,label[,split].

    Raises:
        DataError: a column is missing, or a split has an unknown name.
    """
    names, labels, splits, skipped = [], [], [], []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for line, row in enumerate(_csv_rows(file, path), start=2):
            name, label = (row.get("path") or "").strip(), (row.get("label") or "").strip()
            split = (row.get("split") or "").strip().lower()
            if not name or not label:
                skipped.append(Skipped(name or f"line {line}", "no path or no label in the list"))
                continue
            if split and split not in SPLIT_NAMES:
                raise DataError(
                    f"{path} line {line}: split {split!r} is not train, validation or test"
                )
            names.append(name)
            labels.append(label)
            splits.append(SPLIT_NAMES[split] if split else None)
    if None in splits and len(set(splits)) > 1:
        raise DataError(
            f"{path}: some rows have a split and some have none: fill the column or drop it"
        )
    return Listing(str(path.resolve()), FolderStore(path.parent, names), labels, splits, skipped)


def _csv_rows(file: Any, path: Path) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(file)
    try:
        columns = reader.fieldnames or []
        missing = [column for column in ("path", "label") if column not in columns]
        if missing:
            raise DataError(
                f"{path} has no column {missing[0]!r}: its first line must name path,label[,split]"
            )
        yield from reader
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read as CSV in UTF-8: {error}") from None
