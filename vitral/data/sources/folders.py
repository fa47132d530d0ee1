"""Folders of class folders, and split folders whose parts may be archives."""

import os
import re
from dataclasses import replace
from pathlib import Path

from vitral.data.file_types import IMAGE_SUFFIXES, START_BYTES, is_read, kind_of
from vitral.data.sources.archives import is_archive, open_archive
from vitral.data.sources.listing import (
    EMPTY_FOLDER,
    NOT_AN_IMAGE,
    SPLIT_NAMES,
    Label,
    Listing,
    Skipped,
    join_listings,
)
from vitral.data.sources.store import FolderStore, SelectedStore, Store
from vitral.errors import DataError


def list_folder(root: Path, *, label: bool = True) -> Listing:
    """List the files of a folder, by its class folders or by those of its splits.

    Args:
        root: the folder.
        label: whether classes are read; if not, images at any depth are examples.

    Raises:
        DataError: an archive is damaged, or a split has two places or no class folders.
    """
    split_paths = _find_splits(root, label=label)
    if not split_paths:
        names, skipped = walk_files(root)
        source, whole = str(root.resolve()), FolderStore(root, names)
        listing = list_class_folders(source, whole, skipped, split=None, label=label)
        if not label:
            return listing
        named = sorted({str(label) for label in listing.labels})
        if len(named) > 1 and {name.lower() for name in named} <= set(SPLIT_NAMES):
            raise DataError(
                f"{root} has images straight in {named[0]}/, where folders of classes "
                "should be: put them into one folder for each class"
            )
        return listing
    parts, prefixes = [], []
    for split, path in split_paths.items():
        prefix = f"{path.name}/"
        if path.is_dir():
            names, skipped = walk_files(path)
            store: Store = FolderStore(path, names)
        else:
            store, skipped = open_archive(path), []
        parts.append(list_class_folders(str(path), store, skipped, split=split, label=label))
        prefixes.append(prefix)
    joined = join_listings(parts, prefixes, source=str(root.resolve()))
    return replace(joined, skipped=joined.skipped + _outside_splits(root, split_paths))


def _find_splits(root: Path, *, label: bool) -> dict[str, Path]:
    """Return the folders and archives of a split folder by split; empty if it is none.

    Where classes are read, a split's folder has folders in it.
    """
    found: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        archive = path.is_file() and is_archive(path)
        stem = re.sub(r"(\.tar)?\.[a-z]+$", "", path.name.lower()) if archive else path.name.lower()
        split = SPLIT_NAMES.get(stem)
        if split is None:
            continue
        inner = path.iterdir() if path.is_dir() else ()
        if not archive and not any(p.is_dir() or not label for p in inner):
            continue
        if split in found:
            raise DataError(
                f"{root} has two places for the {split} split, {found[split].name} and "
                f"{path.name}: "
                "keep one of them"
            )
        found[split] = path
    return found


def _outside_splits(root: Path, split_paths: dict[str, Path]) -> list[Skipped]:
    names, skipped = walk_files(root, leave_out={path.name for path in split_paths.values()})
    outside = [Skipped(name, "not in a split's folder") for name in names]
    return outside + [
        s
        for s in skipped
        if s.name.split("/")[0] not in {path.name for path in split_paths.values()}
    ]


def list_class_folders(
    source: str,
    store: Store,
    skipped: list[Skipped],
    *,
    split: str | None,
    label: bool = True,
) -> Listing:
    """List files by the first folder of each name, its class; files without one are skipped.

    Without `label`, no image has a class, wherever it lies.
    """
    names = [name.split("/") for name in store.names]
    lead = common_lead(names)
    file_ids, labels = list[int](), list[Label]()
    for file_id, parts in enumerate(names):
        reason = _reason_to_skip(parts, store, file_id, lead=lead if label else None)
        if reason:
            skipped.append(Skipped(store.names[file_id], reason))
        else:
            file_ids.append(file_id)
            labels.append(parts[lead] if label else ())
    return Listing(source, SelectedStore(store, file_ids), labels, [split] * len(file_ids), skipped)


def common_lead(names: list[list[str]]) -> int:
    """Return how many folders all files share above the class folders: 0 or 1."""
    seen = [parts for parts in names if len(parts) > 1 and not _is_hidden(parts)]
    inner = {parts[1] for parts in seen if len(parts) > 2}
    return 1 if len({parts[0] for parts in seen}) == 1 and len(inner) > 1 else 0


def _is_hidden(parts: list[str]) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in parts[:-1])


def _reason_to_skip(
    parts: list[str], store: Store, file_id: int, *, lead: int | None
) -> str | None:
    """Return why a file is no example; `lead`: the folders above the class folders, if any."""
    if _is_hidden(parts):
        return "in a hidden folder"
    if parts[-1].startswith("."):
        return "a hidden file"
    if lead is not None and len(parts) < lead + 2:
        return "not in a class folder"
    if Path(parts[-1]).suffix.lower() in IMAGE_SUFFIXES:
        return None
    try:
        content = store.read(file_id)
    except OSError as error:
        return f"can't be read: {error.strerror or error}"
    kind = kind_of(content[:START_BYTES]) if isinstance(content, bytes) else None
    if kind and is_read(kind):
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
        if not folders and not files and relative != ".":
            skipped.append(Skipped(relative, EMPTY_FOLDER))
        folders.sort()
        if leave_out and relative == ".":
            folders[:] = [name for name in folders if name not in leave_out]
        prefix = "" if relative == "." else f"{relative}/"
        outside = leave_out if leave_out and relative == "." else ()
        names.extend(prefix + name for name in sorted(files) if name not in outside)
    return names, skipped
