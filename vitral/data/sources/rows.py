"""Rows of a list or table: which columns say what, and the listing that they make."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vitral.data.sources.listing import SPLIT_NAMES, Label, Listing, Skipped
from vitral.data.stores.store import SelectedStore, Store
from vitral.errors import DataError

PATH_COLUMNS = ("path", "file_name", "image_path")
LABEL_COLUMNS = ("label", "labels")
STATED_COLUMNS = (*LABEL_COLUMNS, "split", "group")
"""What a row may say of its image."""
_COLUMNS_HINT = "name path,label[,split][,group], or path,labels with labels joined by |"


@dataclass
class Rows:
    """What was taken from the rows, one entry an example."""

    names: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    """The row of each example, counted from 0."""
    labels: list[Label] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    groups: list[str] | None = None
    skipped: list[Skipped] = field(default_factory=list)

    def of(self, store: Store) -> Store:
        """Return the store of the examples out of the store of all rows."""
        is_all = len(self.numbers) == len(store.names)
        return store if is_all else SelectedStore(store, self.numbers)

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
    """Say whether there is a column of files and one of labels."""
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
        class_name: from what stands for a class to its name.

    Raises:
        DataError: a column is missing or one too many, or a split has an unknown name.
    """
    path_column = next((name for name in PATH_COLUMNS if name in columns), None)
    if needs_path and path_column is None:
        raise DataError(f"{where} has no column 'path': its columns must {_COLUMNS_HINT}")
    label_column = _label_column(columns, where)
    taken = Rows(groups=[] if "group" in columns else None)
    for number, row in enumerate(rows):
        line = number + first_line
        name = _text(row.get(path_column)) if path_column else ""
        label = _label(row.get(label_column), label_column, class_name)
        if (needs_path and not name) or label == "":
            missing = Skipped(name or f"line {line}", "no path or no label in the list")
            taken.skipped.append(missing)
            continue
        taken.names.append(name or str(number))
        taken.numbers.append(number)
        taken.labels.append(label)
        taken.splits.append(_split(_text(row.get("split")), where=f"{where} line {line}"))
        if taken.groups is not None:
            taken.groups.append(_text(row.get("group")) or taken.names[-1])
    if None in taken.splits and len(set(taken.splits)) > 1:
        raise DataError(
            f"{where}: some rows have a split and some have none: fill the column or drop it"
        )
    return taken


def class_namer(names: Sequence[str] | None) -> Callable[[Any], str]:
    """Return what turns a table's value into a class name: numbers count in `names`, if any.

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
        return tuple(dict.fromkeys(class_name(own) for own in value))
    if column == "labels":
        parts = (part.strip() for part in _text(value).split("|"))
        return tuple(dict.fromkeys(part for part in parts if part))
    return "" if value is None or value == "" else class_name(value).strip()


def _split(text: str, *, where: str) -> str | None:
    if not text:
        return None
    if text.lower() not in SPLIT_NAMES:
        raise DataError(f"{where}: split {text!r} is not train, validation or test")
    return SPLIT_NAMES[text.lower()]


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
