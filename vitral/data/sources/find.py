"""Where examples are: folders, archives, lists, shards, tables, arrays, objects.

A source only lists: which files may be examples, with which labels and split, and which are left
out and why. The survey looks into the files.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitral.data.sources.archives import is_archive, open_archive
from vitral.data.sources.arrays import list_npz, list_object
from vitral.data.sources.arrow import (
    TABLE_SUFFIXES,
    holds_examples,
    list_table,
    list_tables,
)
from vitral.data.sources.folders import common_lead, list_class_folders, list_folder, walk_files
from vitral.data.sources.huggingface import is_saved_dataset, list_saved_dataset
from vitral.data.sources.listing import (
    READ_HINT,
    SPLIT_NAMES,
    Listing,
    Skipped,
    join_listings,
    split_of_file,
)
from vitral.data.sources.lists import LIST_SUFFIXES, find_list, list_by_file_in, list_file
from vitral.data.sources.packed import is_packed, list_packed
from vitral.data.sources.shards import (
    LABEL_SUFFIX,
    expand_pattern,
    find_shards,
    is_pattern,
    list_shard,
    list_shards,
)
from vitral.data.sources.store import SelectedStore, Store
from vitral.errors import RequestError


def list_source(data: Any, *, label: bool = True, targets: Sequence[str] = ()) -> Listing:
    """List the examples of a path, a pattern, or a sized object with [i] -> (image, label).

    Args:
        data: what the user gives.
        label: whether classes are read; if not, sources without classes are read too.
        targets: kinds of target to read besides.

    Raises:
        RequestError: nothing is there, or it is of no supported form, or has no such targets.
        DataError: its contents can't be used.
    """
    if not isinstance(data, str | os.PathLike):
        return list_object(data, label=label, targets=targets)
    if targets:
        raise RequestError(
            f"{data} gives no targets of kind {targets[0]!r}: give a sized object with [i] -> "
            "(image, target)"
        )
    path = Path(data)
    if not path.exists():
        if is_pattern(str(data)):
            return _list_files(expand_pattern(str(data)), source=str(data))
        raise RequestError(f"there is nothing at {path}: {READ_HINT}")
    listing = _list_directory(path, label) if path.is_dir() else _list_file(path, label)
    return listing if label else replace(listing, labels=[()] * len(listing.labels), classes=None)


def _list_file(path: Path, label: bool = True) -> Listing:
    suffix = path.suffix.lower()
    if suffix in TABLE_SUFFIXES:
        return list_table(path)
    if suffix in LIST_SUFFIXES:
        return list_file(path)
    if suffix == ".npz":
        return list_npz(path, label=label)
    if is_archive(path):
        return list_archive(path, label=label)
    raise RequestError(f"{path} is of no form that is read: {READ_HINT}")


def _list_directory(path: Path, label: bool) -> Listing:
    if is_packed(path):
        return list_packed(path)
    if is_saved_dataset(path):
        return list_saved_dataset(path)
    if list_path := find_list(path):
        return _with_rest(list_file(list_path), path, list_path.name)
    tables = _find_tables(path)
    if tables:
        return _list_files(tables, source=str(path.resolve()))
    listing = list_folder(path, label=label)
    if not listing.labels and (shards := find_shards(path)):
        return list_shards(shards, source=str(path.resolve()))
    return listing


def _list_files(paths: list[Path], *, source: str) -> Listing:
    """List shards, or tables; a single file as if it had been named."""
    if len(paths) == 1:
        return _list_file(paths[0])
    if all(is_archive(path) for path in paths):
        return list_shards(paths, source=source)
    if all(path.suffix.lower() in TABLE_SUFFIXES for path in paths):
        splits = [split_of_file(path.name) for path in paths]
        return list_tables(paths, source=source, splits=splits)
    raise RequestError(f"{source} names files of several forms: name shards, or tables")


def _with_rest(listing: Listing, folder: Path, list_name: str) -> Listing:
    """Return the listing of a folder's own list, with what the list leaves out as skipped."""
    names, skipped = walk_files(folder)
    listed = {*listing.store.names, list_name}
    rest = [Skipped(name, f"not in {list_name}") for name in names if name not in listed]
    note = f"the examples are those of {list_name} in it"
    return replace(
        listing, skipped=[*listing.skipped, *skipped, *rest], notes=[*listing.notes, note]
    )


def _find_tables(folder: Path) -> list[Path]:
    """Return the tables of a folder, or of its `data` folder, as on the Hub; empty if none.

    Folders next to a table may be classes: then it must hold images and labels to be the data.
    """
    inner = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    may_be_classes = any(name != "data" and not name.startswith(".") for name in inner)
    for directory in (folder, folder / "data"):
        files = sorted(directory.iterdir()) if directory.is_dir() else []
        tables = [file for file in files if file.suffix.lower() in TABLE_SUFFIXES]
        if tables and (not may_be_classes or holds_examples(tables[0])):
            return tables
    return []


def list_archive(path: Path, *, label: bool = True) -> Listing:
    """List the examples of a .tar, .tar.gz, .tgz or .zip.

    Args:
        path: of the file.
        label: whether classes are read; if not, images at any depth are examples.

    Raises:
        DataError: it is damaged, or a list in it can't be read.
    """
    store, source = open_archive(path), str(path.resolve())
    if listing := list_by_file_in(source, store):
        return listing
    if any(name.endswith(LABEL_SUFFIX) for name in store.names):
        return list_shard(store, source=source, split=None)
    listing = list_splits_in(source, store) if label else None
    return listing or list_class_folders(source, store, [], split=None, label=label)


def list_splits_in(source: str, store: Store) -> Listing | None:
    """List the class folders of each split of a store; None if its folders are no splits."""
    names = [name.split("/") for name in store.names]
    lead = common_lead(names)
    deep = {parts[lead] for parts in names if len(parts) > lead + 2}
    split_of = {folder: SPLIT_NAMES.get(folder.lower()) for folder in sorted(deep)}
    if len(set(split_of.values()) - {None}) < 2:
        return None
    folders = [name[lead] if len(name) > lead and name[lead] in split_of else "" for name in names]
    parts, prefixes = [], []
    for folder, split in [*split_of.items(), ("", None)]:
        inside = [file_id for file_id, owner in enumerate(folders) if owner == folder]
        prefix = "/".join([*names[inside[0]][:lead], folder]) + "/" if inside and folder else ""
        short = [store.names[file_id].removeprefix(prefix) for file_id in inside]
        part = SelectedStore(store, inside, names=short)
        listing = list_class_folders(source, part, [], split=split) if split else _left_out(part)
        parts.append(listing)
        prefixes.append(prefix)
    return join_listings(parts, prefixes, source=source)


def _left_out(store: Store) -> Listing:
    skipped = [Skipped(name, "not in a split's folder") for name in store.names]
    return Listing("", SelectedStore(store, []), [], [], skipped)
