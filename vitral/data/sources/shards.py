"""Shards: tars of KEY.jpg with KEY.cls beside, or of class/KEY.jpg; WebDataset's form."""

import glob
import itertools
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from vitral.data.file_types import IMAGE_SUFFIXES
from vitral.data.sources.archives import is_archive, open_archive
from vitral.data.sources.folders import list_class_folders
from vitral.data.sources.listing import (
    NOT_AN_IMAGE,
    Listing,
    Skipped,
    join_listings,
    split_of_file,
)
from vitral.data.sources.store import SelectedStore, Store
from vitral.errors import DataError, RequestError

CLASSES_NAME = "classes.txt"
LABEL_SUFFIX = ".cls"
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def expand_pattern(pattern: str) -> list[Path]:
    """Return the files that a pattern names: `{000..017}` and `{a,b}`, then `*`, `?`, `[...]`.

    Raises:
        RequestError: a file that is named is not there, or none fits.
    """
    found: list[Path] = []
    for name in _expand_braces(pattern):
        if glob.has_magic(name) and not Path(name).exists():
            found += map(Path, sorted(glob.glob(name)))  # noqa: PTH207, with absolute patterns too
        elif Path(name).exists():
            found.append(Path(name))
        else:
            raise RequestError(f"{pattern} names {name}, which is not there")
    if not found:
        raise RequestError(f"no file fits {pattern}")
    return list(dict.fromkeys(found))


def is_pattern(text: str) -> bool:
    """Return whether text names several files."""
    return glob.has_magic(text) or "{" in text


def list_shards(paths: Sequence[Path], *, source: str) -> Listing:
    """List the examples of shards, in the order of the shards.

    The split is what a shard's name begins with, as in `train-00000.tar`.

    Raises:
        DataError: a shard is damaged, or some have a split and some have none.
    """
    splits = [split_of_file(path.name) for path in paths]
    if None in splits and len(set(splits)) > 1:
        unknown = paths[splits.index(None)].name
        raise DataError(
            f"{source}: the name of {unknown} says no split, those of others do: begin each with "
            "train, val or test"
        )
    classes = read_classes(paths[0].parent / CLASSES_NAME)
    parts = [
        list_shard(open_archive(path), source=str(path), split=split, classes=classes)
        for path, split in zip(paths, splits, strict=True)
    ]
    prefixes = [f"{path.name}/" for path in paths]
    return join_listings(parts, prefixes, source=source, classes=classes)


def list_shard(
    store: Store, *, source: str, split: str | None, classes: tuple[str, ...] | None = None
) -> Listing:
    """List the members of one shard by their `.cls`, or by their folders where it has none."""
    keys = {
        _key(name): index for index, name in enumerate(store.names) if name.endswith(LABEL_SUFFIX)
    }
    if not keys:
        return list_class_folders(source, store, [], split=split)
    label_ids = set(keys.values())
    file_ids: list[int] = []
    labels: list[str] = []
    skipped: list[Skipped] = []
    for file_id, name in enumerate(store.names):
        if file_id in label_ids:
            continue
        reason = None
        if PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES:
            reason = NOT_AN_IMAGE
        elif _key(name) not in keys:
            reason = f"no {LABEL_SUFFIX} beside it"
        if reason:
            skipped.append(Skipped(name, reason))
            continue
        file_ids.append(file_id)
        labels.append(_read_label(store, keys[_key(name)], classes, source=source))
    return Listing(source, SelectedStore(store, file_ids), labels, [split] * len(file_ids), skipped)


def find_shards(folder: Path) -> list[Path]:
    """Return the shards of a folder that holds nothing else but files; empty if it is none."""
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    if any(path.is_dir() for path in entries):
        return []
    return [path for path in entries if is_archive(path)]


def _key(name: str) -> str:
    """Return what the files of one example share: the path up to the first dot of the name."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.split(".")[0]


def _read_label(store: Store, file_id: int, classes: tuple[str, ...] | None, *, source: str) -> str:
    """Return the class name that a .cls says: itself, or the one of its number."""
    content = store.read(file_id)
    assert isinstance(content, bytes)
    text = content.decode("utf-8", errors="replace").strip()
    if classes is None or not text.isdecimal():
        return text
    if int(text) >= len(classes):
        raise DataError(
            f"{source}: {store.names[file_id]} says class {text}, {CLASSES_NAME} has {len(classes)}"
        )
    return classes[int(text)]


def read_classes(path: Path) -> tuple[str, ...] | None:
    """Return the class names of a list, one a line; None if it is not there."""
    if not path.exists():
        return None
    names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    names = [name for name in names if name]
    if len(set(names)) < len(names):
        raise DataError(f"{path} names a class twice")
    return tuple(names)


def _expand_braces(pattern: str) -> list[str]:
    """Expand `{000..017}`, in the width of its first number, and `{a,b}`; none within another."""
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    options = [[piece] if n % 2 == 0 else _options(piece) for n, piece in enumerate(pieces)]
    return ["".join(parts) for parts in itertools.product(*options)]


def _options(inside: str) -> list[str]:
    match = _RANGE.fullmatch(inside)
    if not match:
        return inside.split(",")
    first, last = match.groups()
    return [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
