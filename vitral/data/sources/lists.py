"""Lists of files with their classes: CSV, JSON lines and Parquet, on disk or in an archive."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from vitral.data.sources.listing import Listing, Skipped
from vitral.data.sources.rows import Rows, states_examples, take_rows
from vitral.data.stores.folder import FolderStore
from vitral.data.stores.store import SelectedStore, Store
from vitral.errors import DataError
from vitral.files.arrow import read_parquet_rows

LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
# A file of one of these names, with one of those endings, is the list of the folder it lies in.
LIST_NAMES = ("metadata", "list", "labels")


def list_file(path: Path) -> Listing:
    """List the rows of a list; its paths are relative to it.

    Raises:
        DataError: it can't be read, a column is missing, or a split has an unknown name.
    """
    columns, rows, first_line = _read(path.read_bytes(), path.name, where=str(path))
    taken = take_rows(rows, columns=columns, where=str(path), first_line=first_line)
    return taken.listing(str(path.resolve()), FolderStore(path.parent, taken.names))


def find_list(folder: Path) -> Path | None:
    """Return the list of a folder, a file that is called so and names files and labels."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and _is_list_name(path.name):
            columns, _, _ = _read(path.read_bytes(), path.name, where=str(path))
            if states_examples(columns):
                return path
    return None


def list_by_file_in(source: str, store: Store) -> Listing | None:
    """List the files of an archive by a list among them; its paths are relative to it.

    Returns:
        None where there is no list at the top, or below the one folder of the top.

    Raises:
        DataError: the list can't be read.
    """
    for number, name in enumerate(store.names):
        if name.count("/") < 2 and _is_list_name(name):
            content = store.read(number)
            assert isinstance(content, bytes)
            where = f"{source}: {name}"
            columns, rows, first_line = _read(content, name, where=where)
            if states_examples(columns):
                taken = take_rows(rows, columns=columns, where=where, first_line=first_line)
                return _listed(taken, source, store, number)
    return None


def _listed(rows: Rows, source: str, store: Store, number: int) -> Listing:
    """Return the listing of an archive's members by the list that is its member `number`."""
    folder = PurePosixPath(store.names[number]).parent
    place = {own: n for n, own in enumerate(store.names)}
    names = [(folder / own).as_posix() for own in rows.names]
    wanted = [place.get(own, -1) for own in names]
    listed = {*wanted, number}
    rows.skipped += [
        Skipped(own, "not in the list") for n, own in enumerate(store.names) if n not in listed
    ]
    return rows.listing(source, SelectedStore(store, wanted, names=names))


def _is_list_name(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in LIST_SUFFIXES and path.stem.lower() in LIST_NAMES


def _read(
    content: bytes, name: str, *, where: str
) -> tuple[list[str], list[Mapping[str, Any]], int]:
    """Return columns, rows, and the line of the first row, by the form that the name says."""
    kind = PurePosixPath(name).suffix.lower()[1:]
    if kind == "parquet":
        return *read_parquet_rows(content, where=where), 1
    if kind == "jsonl":
        return *_json_rows(_text(content, kind, where), where=where), 1
    return *_csv_rows(_text(content, kind, where), kind=kind, where=where), 2


def _text(content: bytes, kind: str, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} can't be read as {kind.upper()} in UTF-8: {error}") from None


def _csv_rows(text: str, *, kind: str, where: str) -> tuple[list[str], list[Mapping[str, Any]]]:
    delimiter = "\t" if kind == "tsv" else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return list(reader.fieldnames or []), list(reader)
    except csv.Error as error:
        raise DataError(f"{where} can't be read as {kind.upper()}: {error}") from None


def _json_rows(text: str, *, where: str) -> tuple[list[str], list[Mapping[str, Any]]]:
    rows: list[Mapping[str, Any]] = []
    for line, own in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(own) if own.strip() else {}
        except ValueError as error:
            raise DataError(f"{where} line {line} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{where} line {line}: {own[:40]!r} is no object of path and label")
        rows.append(row)
    return list(dict.fromkeys(name for row in rows for name in row)), rows
