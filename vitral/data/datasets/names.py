"""Resolves what DATA means: a path, an object, or the name of a data set."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitral.data.datasets.published import DatasetFiles, NamedDataset, check_counts
from vitral.data.datasets.table import DATASETS, LABEL_SETS, TASKS
from vitral.data.datasets.vtab import NUM_TRAIN, NUM_VALIDATION, find_task, list_task
from vitral.data.sources.find import list_source
from vitral.data.sources.listing import Listing, join_listings
from vitral.data.sources.lists import find_list, list_file
from vitral.data.sources.shards import CLASSES_NAME, is_pattern, read_classes
from vitral.errors import RequestError, nearest
from vitral.files.atomic import sha256

# 10,000 training and 2,000 test images of Fashion-MNIST (arXiv 1708.07747), MIT licence.
BUILTIN = {"fashion-mnist": Path(__file__).parents[1] / "builtin" / "fashion_mnist.npz"}
DEFAULT_NAME = "fashion-mnist"
VTAB_PREFIX, THOUSAND = "vtab-", "-1000"
JFT = "jft300m"


def list_data(
    data: Any,
    *,
    directory: str | Path | None = None,
    label: bool = True,
    targets: Sequence[str] = (),
) -> Listing:
    """List the examples of what the user calls DATA.

    Args:
        data: a path, a pattern, a name, or a sized object with [i] -> (image, label).
        directory: where the files of named data sets are; None: `$VITRAL_DATA_DIR`, else `data`.
        label: whether classes are read; if not, sources without classes are read too.
        targets: kinds of target to read besides.

    Raises:
        RequestError: text that is neither a path nor a name; files of a name are missing.
        DataError: the contents can't be used.
    """
    name = name_of(data)
    if name is None or name in BUILTIN:
        if directory:
            raise RequestError(
                f"--data-dir {directory} has no effect: {data} is no name of a published data set"
            )
        source = data if name is None else BUILTIN[name]
        return list_source(source, label=label, targets=targets)
    listing = _list_named(name, directory)
    return listing if label else replace(listing, labels=[()] * len(listing.labels), classes=None)


def _list_named(name: str, directory: str | Path | None) -> Listing:
    folder = _data_dir(directory)
    if name.startswith(VTAB_PREFIX):
        return _list_vtab(name, folder)
    if name == JFT:
        return _list_jft(folder)
    if name in LABEL_SETS:
        label_set = LABEL_SETS[name]
        place = DatasetFiles(folder, name, label_set.files)
        place.check()
        return replace(label_set.read(place), in_standard_order=True)
    dataset = DATASETS[name]
    place = DatasetFiles(folder, name, dataset.files)
    place.check()
    return _list_dataset(name, dataset, place)


def name_of(data: Any) -> str | None:
    """Return the data set's name that text stands for; None for a path, a pattern or an object.

    Raises:
        RequestError: text that is neither a path nor a name.
    """
    if not isinstance(data, str | os.PathLike) or Path(data).exists():
        return None
    folded, known = _fold(str(data)), _known_names()
    if folded in known:
        return known[folded]
    if not any(sign in str(data) for sign in "./\\"):
        hint = nearest(str(data), [name for name in known.values() if not name.endswith(THOUSAND)])
        raise RequestError(f"there is no folder, file or data set {str(data)!r}{hint}")
    return None


def check_files(data: Any, *, directory: str | Path | None = None) -> list[str]:
    """Return which downloaded files of a named data set differ in SHA-256 from the publisher's.

    Args:
        data: as `list_data` takes it.
        directory: as `list_data` takes it.
    """
    name = name_of(data)
    if name is None or name in (*BUILTIN, JFT):
        return []
    if name in LABEL_SETS:
        folder, files = name, LABEL_SETS[name].files
    elif name in DATASETS:
        folder, files = name, DATASETS[name].files
    else:
        task = TASKS[name.removeprefix(VTAB_PREFIX).removesuffix(THOUSAND)]
        folder, files = task.dataset, task.files
    return [
        f"{path} has the SHA-256 {digest}, that of its publisher is {file.sha256}"
        for file, path in DatasetFiles(_data_dir(directory), folder, files).archives()
        if path.is_file() and file.sha256 and (digest := sha256(path)) != file.sha256
    ]


def check_task(task: str, *, directory: str | Path | None = None) -> None:
    """Make sure that the files of one of VTAB's tasks are there, without reading them.

    Args:
        task: its name in `TASKS`.
        directory: as `list_data` takes it.

    Raises:
        RequestError: they are missing; says where they come from.
    """
    find_task(TASKS[task], _data_dir(directory))


def _data_dir(directory: str | Path | None) -> Path:
    return Path(directory or os.environ.get("VITRAL_DATA_DIR") or "data")


def is_published(data: Any) -> bool:
    """Return whether DATA is the name of a data set whose files are in a folder."""
    name = name_of(data)
    return name is not None and name not in BUILTIN


def data_name(data: Any) -> str:
    """Return a short name for a data set, for run folders and titles."""
    if not isinstance(data, str | os.PathLike):
        return type(data).__name__
    named = _known_names().get(_fold(str(data)))
    if named and not Path(data).exists():
        return named
    path = Path(data)
    found = path.resolve().parent if is_pattern(str(data)) and not path.exists() else path.resolve()
    return found.name.split(".")[0] or "data"


def _known_names() -> dict[str, str]:
    """Return the names of all data sets by their lower-case spelling without - and _."""
    tasks = [f"{VTAB_PREFIX}{task}{end}" for task in TASKS for end in ("", THOUSAND)]
    return {_fold(name): name for name in (*BUILTIN, *DATASETS, *LABEL_SETS, JFT, *tasks)}


def _fold(text: str) -> str:
    return text.lower().replace("_", "").replace("-", "")


def _list_jft(directory: Path) -> Listing:
    """List JFT-300M by a list of its paths: Google has not published it."""
    folder = directory / JFT
    list_path = find_list(folder) if folder.is_dir() else None
    if list_path is None:
        raise RequestError(
            f"{JFT} is not public: if you have it, put a list `metadata.parquet` (or .csv, .jsonl) "
            f"of path and labels (several an image) beside classes.txt into {folder}, or name "
            "another folder with --data-dir"
        )
    listing = list_file(list_path)
    classes = read_classes(folder / CLASSES_NAME)
    return replace(listing, classes=classes, notes=["303 million images of 18,291 classes in full"])


def _list_vtab(name: str, directory: Path) -> Listing:
    thousand = name.endswith(THOUSAND)
    short = name.removeprefix(VTAB_PREFIX).removesuffix(THOUSAND)
    task = TASKS[short]
    listing = list_task(name, task, directory, thousand=thousand)
    train = NUM_TRAIN + NUM_VALIDATION * thousand
    wanted = {"train": train, "validation": NUM_VALIDATION * (not thousand), "test": task.num_test}
    complaints = [
        f"{name} has {found:,} {split} images here, {count:,} as published"
        for split, count in wanted.items()
        if (found := list(listing.splits).count(split)) != count
    ]
    disabled = {change for change in ("crop", "flip") if not getattr(task, change)}
    notes = [
        *listing.notes,
        *(f"{change}s are off: they would change the class" for change in disabled),
    ]
    return replace(
        listing, complaints=complaints, disabled_augmentations=frozenset(disabled), notes=notes
    )


def _list_dataset(name: str, dataset: NamedDataset, place: DatasetFiles) -> Listing:
    published = dataset.read(place)
    parts = [
        Listing("", part.store, part.labels, [split] * len(part.labels))
        for split, part_name in dataset.splits.items()
        for part in [published.parts[part_name]]
    ]
    listing = join_listings(
        parts, [f"{split}/" for split in dataset.splits], source=name, classes=published.classes
    )
    return replace(
        listing,
        notes=[
            f"{dataset.title}, from {dataset.source}; licence: {dataset.licence}",
            *published.notes,
        ],
        complaints=check_counts(name, dataset, published),
        in_standard_order=name.startswith("imagenet"),
    )
