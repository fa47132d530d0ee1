"""A cleaned list of a source's files, which trains as the source would without its problems."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vitral.data.check.check import Check, find_shared_files
from vitral.data.check.checked import CheckedData, clusters
from vitral.data.dataset import SPLITS
from vitral.data.sources.listing import class_order, names_in, number_labels
from vitral.data.splits import group_shares, hash_shares, stratified_folds
from vitral.errors import RequestError
from vitral.files.rows import Row


def cleaned_rows(
    check: Check, path: Path, *, against: CheckedData | None = None, folds: int = 0
) -> list[Row]:
    """Return a list's rows of what is good: `path`, `label` or `labels`, `split`, `group`, `fold`.

    Left out are files that can't be read; of copies all but one, which is kept where it matters
    most, in the test split before the others; all copies whose classes differ, since one of them is
    wrong; training images that look like one of another declared split; and what `against` has.
    Images that look alike become one group, so that no later split tears them apart.

    Args:
        check: of the data.
        path: where the list will lie; paths in it are relative to its folder.
        against: other data, whose images are left out.
        folds: above 0: the number of folds.

    Raises:
        RequestError: the data is not made of files of their own.
    """
    data = check.data
    dropped = set(_unwanted(data))
    if against is not None:
        dropped |= find_shared_files(data, against).keys()
    file_ids = [
        file_id for file_id in np.flatnonzero(data.usable).tolist() if file_id not in dropped
    ]
    groups = _groups(data)
    column = "labels" if data.listing.is_multi_label else "label"
    rows: list[Row] = []
    for file_id in file_ids:
        row: Row = {"path": _relative(data, file_id, path), column: data.label(file_id)}
        if data.listing.is_split:
            row["split"] = str(data.splits[file_id])
        if groups is not None:
            row["group"] = groups[file_id]
        rows.append(row)
    if folds:
        fold_ids = folds_of(data, file_ids, folds=folds, groups=groups).tolist()
        rows = [{**row, "fold": fold} for row, fold in zip(rows, fold_ids, strict=True)]
    return rows


def folds_of(
    data: CheckedData, numbers: list[int], *, folds: int, groups: Sequence[str] | None
) -> np.ndarray:
    """Return the fold of some files, as a training with `data.folds` divides them.

    Args:
        data: of the files.
        numbers: of the files.
        folds: how many.
        groups: of all files; None: copies alone stay together.

    Raises:
        RequestError: fewer than two folds.
    """
    if folds < 2:
        raise RequestError(f"folds={folds}: give 2 or more")
    labels = [data.listing.labels[file_id] for file_id in numbers]
    known = sorted(names_in(labels), key=class_order)
    if groups is None:
        shares = hash_shares([data.file_infos[file_id].digest or "0" for file_id in numbers])
    else:
        shares = group_shares([groups[file_id] for file_id in numbers])
    return stratified_folds(shares, number_labels(labels, known), folds=folds)


def _unwanted(data: CheckedData) -> Iterator[int]:
    """Yield the usable files that are left out."""
    kept_copy_of: dict[int, int] = {}
    for group in data.copies:
        if len({data.label(file_id) for file_id in group}) > 1:
            yield from group
        else:
            kept_id = max(
                group, key=lambda file_id: (SPLITS.index(str(data.splits[file_id])), -file_id)
            )
            kept_copy_of[group[0]] = kept_id  # in whose place it stands among what looks alike
            yield from (file_id for file_id in group if file_id != kept_id)
    if data.listing.is_split:
        for first, second in data.near:
            pair = (kept_copy_of.get(first, first), kept_copy_of.get(second, second))
            ordered = sorted(pair, key=lambda file_id: SPLITS.index(str(data.splits[file_id])))
            if data.splits[ordered[0]] != data.splits[ordered[1]]:
                yield ordered[0]


def _groups(data: CheckedData) -> list[str] | None:
    """Return the group of each file, whatever looks alike in one; None: nothing belongs together.

    A group is named by the source's name of it, or by its first file.
    """
    stated = data.listing.groups
    if stated is None and not data.near:
        return None
    pairs = [*data.near, *((group[0], file_id) for group in data.copies for file_id in group[1:])]
    if stated is not None:
        first_of: dict[str, int] = {}
        pairs += [
            (first_of.setdefault(name, file_id), file_id) for file_id, name in enumerate(stated)
        ]
    names = stated or data.listing.store.names
    return [names[first] for first in clusters(pairs, count=len(data.file_infos)).tolist()]


def _relative(data: CheckedData, file_id: int, path: Path) -> str:
    """Return the path of a file relative to the folder of `path`."""
    source = Path(data.listing.source)
    file = (source if source.is_dir() else source.parent) / data.name(file_id)
    if not file.is_file():
        raise RequestError(
            f"{data.listing.source} is not made of files of their own, which a list could name: "
            "unpack it first"
        )
    return Path(os.path.relpath(file, path.absolute().parent)).as_posix()
