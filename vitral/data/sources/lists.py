"""Lists of files with their classes, and what their columns say: CSV, JSON lines, Parquet."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vitral.data.sources.listing import SPLIT_NAMES, Label, Listing, Skipped
from vitral.data.sources.store import FolderStore, SelectedStore, Store
from vitral.errors import DataError
from vitral.files.optional import read_parquet_rows


def _text(content: bytes, kind: str, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} can't be read as {kind.upper()} in UTF-8: {error}") from None


PATH_COLUMNS = ("path", "file_name", "image_path")
LABEL_COLUMNS = ("label", "labels")
STATED_COLUMNS = (*LABEL_COLUMNS, "split", "group")
"""What a row may say of its image."""
_COLUMNS_HINT = "name path,label[,split][,group], or path,labels with labels joined by |"


@dataclass
class Rows:
    """What was read from the rows, one entry per example."""

    names: list[str] = field(default_factory=list)
    file_ids: list[int] = field(default_factory=list)
    """The row of each example, counted from 0."""
    labels: list[Label] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    groups: list[str] | None = None
    skipped: list[Skipped] = field(default_factory=list)

    def of(self, store: Store) -> Store:
        """Return the store of the examples out of the store of all rows."""
        is_all = len(self.file_ids) == len(store.names)
        return store if is_all else SelectedStore(store, self.file_ids)

    def listing(
        self, source: str, store: Store, *, classes: tuple[str, ...] | None = None
    ) -> Listing:
        """Return the listing of a store whose files are the examples."""
        return Listing(
            source,
            store,
            self.labels,
            self.splits,
            self.skipped,
            classes=classes,
            groups=self.groups,
        )


def states_examples(columns: Sequence[str]) -> bool:
    """Return whether there is a column of files and one of labels."""
    return not {*PATH_COLUMNS}.isdisjoint(columns) and not {*LABEL_COLUMNS}.isdisjoint(columns)


def take_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    columns: Sequence[str],
    where: str,
    needs_path: bool = True,
    first_line: int = 1,
    class_name: Callable[[Any], str] = str,
) -> Rows:
    """Read rows of `path`, `label` or `labels`, and optionally `split` and `group`.

    Args:
        rows: by column; values as text, numbers or lists.
        columns: that there are.
        where: the file, for errors.
        needs_path: whether each row names a file; else it is named by its number.
        first_line: the number of the first row in the file.
        class_name: returns the class name that a cell stands for.

    Raises:
        DataError: a column is missing or one too many, or a split has an unknown name.
    """
    path_column = next((name for name in PATH_COLUMNS if name in columns), None)
    if needs_path and path_column is None:
        raise DataError(f"{where} has no column 'path': its columns must {_COLUMNS_HINT}")
    label_column = _label_column(columns, where)
    taken = Rows(groups=[] if "group" in columns else None)
    for index, row in enumerate(rows):
        line = index + first_line
        name = _cell_text(row.get(path_column)) if path_column else ""
        label = _label(row.get(label_column), label_column, class_name)
        if (needs_path and not name) or label == "":
            missing = Skipped(name or f"line {line}", "no path or no label in the list")
            taken.skipped.append(missing)
            continue
        taken.names.append(name or str(index))
        taken.file_ids.append(index)
        taken.labels.append(label)
        taken.splits.append(_split(_cell_text(row.get("split")), where=f"{where} line {line}"))
        if taken.groups is not None:
            taken.groups.append(_cell_text(row.get("group")) or taken.names[-1])
    if None in taken.splits and len(set(taken.splits)) > 1:
        raise DataError(
            f"{where}: some rows have a split and some have none: fill the column or drop it"
        )
    return taken


def class_namer(names: Sequence[str] | None) -> Callable[[Any], str]:
    """Return a function from a table's value to a class name: numbers index `names`, if given.

    A number without a name, such as the -1 of an unknown label, becomes "".
    """

    def name_of(value: Any) -> str:
        if names is None or not isinstance(value, int):
            return str(value)
        return names[value] if 0 <= value < len(names) else ""

    return name_of


def _label_column(columns: Sequence[str], where: str) -> str:
    found = [name for name in LABEL_COLUMNS if name in columns]
    if not found:
        raise DataError(f"{where} has no column 'label': its columns must {_COLUMNS_HINT}")
    if len(found) > 1:
        raise DataError(f"{where} has columns 'label' and 'labels': keep one of them")
    return found[0]


def _label(value: Any, column: str, class_name: Callable[[Any], str]) -> Label:
    """Return a class, "" where there is none; or all classes of a column of several."""
    if isinstance(value, list | tuple):
        return tuple(dict.fromkeys(class_name(item) for item in value))
    if column == "labels":
        parts = (part.strip() for part in _cell_text(value).split("|"))
        return tuple(dict.fromkeys(part for part in parts if part))
    return "" if value is None or value == "" else class_name(value).strip()


def _split(text: str, *, where: str) -> str | None:
    if not text:
        return None
    if text.lower() not in SPLIT_NAMES:
        raise DataError(f"{where}: split {text!r} is not train, validation or test")
    return SPLIT_NAMES[text.lower()]


def _cell_text(value: Any) -> str:
    return "" if value is None else str(value).strip()


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
    for file_id, name in enumerate(store.names):
        if name.count("/") < 2 and _is_list_name(name):
            content = store.read(file_id)
            assert isinstance(content, bytes)
            where = f"{source}: {name}"
            columns, rows, first_line = _read(content, name, where=where)
            if states_examples(columns):
                taken = take_rows(rows, columns=columns, where=where, first_line=first_line)
                return _listed(taken, source, store, file_id)
    return None


def _listed(rows: Rows, source: str, store: Store, list_id: int) -> Listing:
    """Return the listing of an archive's members by the list that is its member `list_id`."""
    folder = PurePosixPath(store.names[list_id]).parent
    id_of = {name: file_id for file_id, name in enumerate(store.names)}
    names = [(folder / name).as_posix() for name in rows.names]
    wanted = [id_of.get(name, -1) for name in names]
    listed = {*wanted, list_id}
    rows.skipped += [
        Skipped(name, "not in the list")
        for file_id, name in enumerate(store.names)
        if file_id not in listed
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


def _csv_rows(text: str, *, kind: str, where: str) -> tuple[list[str], list[Mapping[str, Any]]]:
    delimiter = "\t" if kind == "tsv" else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return list(reader.fieldnames or []), list(reader)
    except csv.Error as error:
        raise DataError(f"{where} can't be read as {kind.upper()}: {error}") from None


def _json_rows(text: str, *, where: str) -> tuple[list[str], list[Mapping[str, Any]]]:
    rows: list[Mapping[str, Any]] = []
    for line, row_text in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(row_text) if row_text.strip() else {}
        except ValueError as error:
            raise DataError(f"{where} line {line} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(
                f"{where} line {line}: {row_text[:40]!r} is no object of path and label"
            )
        rows.append(row)
    return list(dict.fromkeys(name for row in rows for name in row)), rows
