"""Where examples are: class folders, split folders, archives, CSV lists, arrays, objects.

A source only lists: which files may be examples, with which class and split, and which are left out
and why. What is in the files is the survey's to say.
"""

import csv
import operator
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.decode import IMAGE_SUFFIXES, kind_of
from vitral.data.stores import (
    ArrayStore,
    FolderStore,
    JoinedStore,
    ObjectStore,
    SelectedStore,
    Store,
    is_archive,
    open_archive,
)
from vitral.errors import DataError, RequestError

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
NOT_AN_IMAGE = "not a JPEG, PNG, WebP or BMP image"
READ_HINT = (
    "give a folder of class folders (with or without train/, val/, test/), a .csv of "
    "path,label[,split] "
    "or an .npz of images and labels"
)


@dataclass(frozen=True)
class Skipped:
    """A file that is not used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """The examples of a source, not opened yet; entry i is the store's file i."""

    source: str
    """The path, absolute, or the name."""
    store: Store
    labels: Sequence[str]
    """The class of each file."""
    splits: Sequence[str | None]
    """"train", "validation", "test", or None where the source does not say."""
    skipped: list[Skipped] = field(default_factory=list)
    classes: tuple[str, ...] | None = None
    """The order of classes, where the source states one."""
    notes: list[str] = field(default_factory=list)

    @property
    def is_split(self) -> bool:
        """Whether the source says which examples are for training and which are not."""
        return len(set(self.splits)) > 1


def list_source(data: Any) -> Listing:
    """List the examples of a path, or of a sized object with [i] -> (image, label).

    Raises:
        RequestError: nothing is there, or it is of no form that is read.
        DataError: its contents can't be used.
    """
    if not isinstance(data, str | os.PathLike):
        return _list_object(data)
    path = Path(data)
    if not path.exists():
        raise RequestError(f"there is nothing at {path}: {READ_HINT}")
    if path.is_dir():
        return _list_folder(path)
    if path.suffix.lower() == ".csv":
        return _list_csv(path)
    if path.suffix.lower() == ".npz":
        return _list_npz(path)
    raise RequestError(f"{path} is of no form that is read: {READ_HINT}")


def class_order(name: str) -> tuple[int, int, str]:
    """Order class names: numbers by value, then text."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def _list_folder(root: Path) -> Listing:
    places = _find_splits(root)
    if not places:
        names, skipped = walk_files(root)
        return _list_class_folders(
            str(root.resolve()), FolderStore(root, names), skipped, split=None
        )
    parts, prefixes = [], []
    for split, place in places.items():
        prefix = f"{place.name}/"
        if place.is_dir():
            names, skipped = walk_files(place)
            store: Store = FolderStore(place, names)
        else:
            store, skipped = open_archive(place), []
        parts.append(_list_class_folders(str(place), store, skipped, split=split))
        prefixes.append(prefix)
    return _join(root, parts, prefixes, beside=_beside_splits(root, places))


def _find_splits(root: Path) -> dict[str, Path]:
    """Return the folders and archives of a split folder by split; empty if it is none."""
    found: dict[str, Path] = {}
    for place in sorted(root.iterdir()):
        archive = place.is_file() and is_archive(place)
        stem = (
            re.sub(r"(\.tar)?\.[a-z]+$", "", place.name.lower()) if archive else place.name.lower()
        )
        split = SPLIT_NAMES.get(stem)
        if split is None:
            continue
        if not archive and not (place.is_dir() and any(p.is_dir() for p in place.iterdir())):
            continue
        if split in found:
            raise DataError(
                f"{root} has two places for the {split} split, {found[split].name} and "
                f"{place.name}: "
                "keep one of them"
            )
        found[split] = place
    return found


def _beside_splits(root: Path, places: dict[str, Path]) -> list[Skipped]:
    names, skipped = walk_files(root, leave_out={place.name for place in places.values()})
    outside = [Skipped(name, "not in a split's folder") for name in names]
    return outside + [
        s for s in skipped if s.name.split("/")[0] not in {p.name for p in places.values()}
    ]


def _join(
    root: Path, parts: list[Listing], prefixes: list[str], *, beside: list[Skipped]
) -> Listing:
    skipped = [
        Skipped(prefix + item.name, item.reason)
        for part, prefix in zip(parts, prefixes, strict=True)
        for item in part.skipped
    ]
    return Listing(
        source=str(root.resolve()),
        store=JoinedStore([part.store for part in parts], prefixes),
        labels=[label for part in parts for label in part.labels],
        splits=[split for part in parts for split in part.splits],
        skipped=skipped + beside,
        notes=[note for part in parts for note in part.notes],
    )


def _list_class_folders(
    source: str, store: Store, skipped: list[Skipped], *, split: str | None
) -> Listing:
    """Take the first folder of each name for its class; what has none is skipped."""
    names = [name.split("/") for name in store.names]
    lead = _common_lead(names)
    kept, labels = [], []
    for number, parts in enumerate(names):
        reason = _reason_to_skip(parts, store, number, lead=lead)
        if reason:
            skipped.append(Skipped(store.names[number], reason))
        else:
            kept.append(number)
            labels.append(parts[lead])
    return Listing(source, SelectedStore(store, kept), labels, [split] * len(kept), skipped)


def _common_lead(names: list[list[str]]) -> int:
    """Return how many folders all files share above the class folders: 0 or 1."""
    seen = [parts for parts in names if len(parts) > 1 and not _is_hidden(parts)]
    inner = {parts[1] for parts in seen if len(parts) > 2}
    return 1 if len({parts[0] for parts in seen}) == 1 and len(inner) > 1 else 0


def _is_hidden(parts: list[str]) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in parts[:-1])


def _reason_to_skip(parts: list[str], store: Store, number: int, *, lead: int) -> str | None:
    if _is_hidden(parts):
        return "in a hidden folder"
    if parts[-1].startswith("."):
        return "a hidden file"
    if len(parts) < lead + 2:
        return "not in a class folder"
    if Path(parts[-1]).suffix.lower() in IMAGE_SUFFIXES:
        return None
    try:
        content = store.read(number)
    except OSError as error:
        return f"can't be read: {error.strerror or error}"
    kind = kind_of(content[:32]) if isinstance(content, bytes) else None
    if kind in ("JPEG", "PNG", "WEBP", "BMP"):
        return None
    return f"{kind} is not read yet" if kind else NOT_AN_IMAGE


def walk_files(root: Path, *, leave_out: set[str] | None = None) -> tuple[list[str], list[Skipped]]:
    """Return every file below a folder by relative path, in fixed order, and folders left out."""
    names: list[str] = []
    skipped: list[Skipped] = []
    seen: set[tuple[int, int]] = set()

    def note_locked(error: OSError) -> None:
        relative = Path(error.filename).relative_to(root).as_posix()
        skipped.append(Skipped(relative, f"can't be opened: {error.strerror or error}"))

    for folder, folders, files in os.walk(root, followlinks=True, onerror=note_locked):
        stat = Path(folder).stat()
        relative = Path(folder).relative_to(root).as_posix()
        if (stat.st_dev, stat.st_ino) in seen:
            skipped.append(Skipped(relative, "a link to a folder that is read already"))
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        folders.sort()
        if leave_out and relative == ".":
            folders[:] = [name for name in folders if name not in leave_out]
        prefix = "" if relative == "." else f"{relative}/"
        outside = leave_out if leave_out and relative == "." else ()
        names.extend(prefix + name for name in sorted(files) if name not in outside)
    return names, skipped


def _list_csv(path: Path) -> Listing:
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


def _list_npz(path: Path) -> Listing:
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise DataError(f"{path} can't be read as .npz: it holds one array, as .npy does")
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} can't be read as .npz: {error}") from None
    for key in ("images", "labels"):
        if key not in arrays:
            raise DataError(f"{path} has no array {key!r}: it has {', '.join(arrays) or 'none'}")
    images, labels = arrays["images"], arrays["labels"]
    store = ArrayStore(images, path=str(path))
    if labels.ndim != 1 or labels.dtype.kind not in "iuU" or len(labels) != len(images):
        raise DataError(
            f"{path}: labels of type {labels.dtype} and shape {labels.shape}, wanted one whole "
            "number "
            f"or name for each of {len(images)} images"
        )
    classes = tuple(map(str, np.atleast_1d(arrays["classes"]))) if "classes" in arrays else None
    if classes is not None and len(set(classes)) < max(2, len(classes)):
        raise DataError(f"{path}: `classes` must be different names, two or more, not {classes}")
    if classes and labels.dtype.kind in "iu":
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
            raise DataError(
                f"{path}: labels from {labels.min()} to {labels.max()} for {len(classes)} classes"
            )
        names = [classes[label] for label in labels]
    else:
        names = [str(label) for label in labels]
    splits = _npz_splits(arrays.get("split"), count=len(images), path=path)
    return Listing(str(path.resolve()), store, names, splits, classes=classes)


def _npz_splits(column: np.ndarray | None, *, count: int, path: Path) -> list[str | None]:
    if column is None:
        return [None] * count
    unknown = sorted({str(name) for name in column.flat} - set(SPLIT_NAMES))
    if column.shape != (count,) or unknown:
        raise DataError(
            f"{path}: `split` must name train, validation or test for each of {count} images"
            + (f", not {unknown[0]!r}" if unknown else "")
        )
    return [SPLIT_NAMES[str(name)] for name in column]


def _list_object(data: Any) -> Listing:
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise RequestError(
            f"data of type {type(data).__name__}: give a path, or a sized object with [i]"
        )
    names = getattr(data, "classes", None)
    classes = tuple(str(name) for name in names) if names is not None else None
    labels = [_class_of(data[i][1], classes, number=i) for i in range(len(data))]
    source = f"{type(data).__name__} of {len(data)}"
    return Listing(source, ObjectStore(data), labels, [None] * len(data), classes=classes)


def _class_of(label: Any, classes: tuple[str, ...] | None, *, number: int) -> str:
    """Return the class that the label of example `number` stands for."""
    if isinstance(label, str):
        return label
    try:
        place = operator.index(label)
    except TypeError:
        place = None
    if place is None or (classes and not 0 <= place < len(classes)):
        below = f" from 0 to {len(classes) - 1}" if classes else ""
        raise DataError(
            f"label {label!r} of example {number}: give a whole number{below}, or a name"
        )
    return classes[place] if classes else str(place)
