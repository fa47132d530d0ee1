"""A data set as its publisher distributes it: files, where they are found, and what they hold."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vitral.data.sources.archives import open_archive
from vitral.data.sources.folders import walk_files
from vitral.data.sources.listing import Label, Listing
from vitral.data.sources.store import FolderStore, SelectedStore, Store
from vitral.errors import DataError, RequestError


@dataclass(frozen=True)
class File:
    """One file as it is downloaded."""

    name: str
    source: str
    """The address of the file, or of the page that gives it."""
    sha256: str = ""
    """In hex, where a source states it."""
    unpacked: str = ""
    """The folder or file that it unpacks to, which is read too; empty: it is read as it is."""
    optional: bool = False
    """Whether only some forms of the data set need it."""


@dataclass(frozen=True)
class Part:
    """The images of one of the publisher's splits."""

    store: Store
    labels: Sequence[Label]
    keys: Sequence[str]
    """By which TensorFlow Datasets orders them; see `tfds_order`."""


@dataclass(frozen=True)
class Published:
    """A data set as its publisher divides it."""

    classes: tuple[str, ...]
    parts: Mapping[str, Part]
    notes: tuple[str, ...] = ()
    """What users must know about how it was read."""


class Members:
    """The files of an archive or folder by name."""

    def __init__(self, store: Store, *, where: str) -> None:
        self.store = store
        self.where = where
        self._index_of = {name: index for index, name in enumerate(store.names)}

    def __contains__(self, name: str) -> bool:
        return name in self._index_of

    def read(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises:
            DataError: it is not there, or damaged.
        """
        if name not in self._index_of:
            raise DataError(f"{self.where} has no {name}: it is not what the publisher distributes")
        try:
            content = self.store.read(self._index_of[name])
        except OSError as error:
            raise DataError(f"{self.where}: {name} can't be read: {error}") from None
        assert isinstance(content, bytes)
        return content

    def lines(self, name: str) -> list[str]:
        """Return the lines of a text file that are not empty."""
        text = self.read(name).decode("utf-8", errors="replace")
        return [line.strip() for line in text.splitlines() if line.strip()]

    def select(self, names: Sequence[str]) -> Store:
        """Return a store of some files, in the given order; those that are absent can't be read."""
        file_ids = [self._index_of.get(name, -1) for name in names]
        return SelectedStore(self.store, file_ids, names=names)


class DatasetFiles:
    """Where the files of a data set are looked for: in a folder, or in its folder of that name."""

    def __init__(self, directory: Path, name: str, files: Sequence[File]) -> None:
        self._folders = [directory / name, directory]
        self._name, self._files = name, {file.name: file for file in files}

    def check(self) -> None:
        """Raise RequestError if a file is missing, with where each comes from and goes to."""
        self.require(*(file.name for file in self._files.values() if not file.optional))

    def require(self, *names: str) -> None:
        """Raise RequestError as `check` does, for some of the files."""
        absent = [self._files[name] for name in names if self._find(self._files[name]) is None]
        if absent:
            listed = "; ".join(f"{file.name} from {file.source}" for file in absent)
            raise RequestError(
                f"{self._name} needs {listed}: put {'it' if len(absent) == 1 else 'them'} into "
                f"{self._folders[0]}, or name another folder with --data-dir"
            )

    def archives(self) -> list[tuple[File, Path]]:
        """Return the files that are there as they were downloaded."""
        found = [(file, self._find(file)) for file in self._files.values()]
        return [(file, path) for file, path in found if path and path.name == file.name]

    def path(self, name: str) -> Path:
        """Return the path of a file, or of what it unpacks to."""
        path = self._find(self._files[name])
        assert path is not None, f"{name} is not checked"
        return path

    def members(self, name: str) -> Members:
        """Open an archive, or the folder that it unpacks to, whose name begins each member's."""
        path = self.path(name)
        if not path.is_dir():
            return Members(open_archive(path), where=str(path))
        names, _ = walk_files(path)
        prefix = self._files[name].unpacked
        return Members(
            FolderStore(
                path.parents[prefix.count("/")], [f"{prefix}/{file_name}" for file_name in names]
            ),
            where=str(path),
        )

    def _find(self, file: File) -> Path | None:
        for folder in self._folders:
            for name in (file.name, file.unpacked):
                if name and (folder / name).exists():
                    return folder / name
        return None


Reader = Callable[[DatasetFiles], Published]


@dataclass(frozen=True)
class NamedDataset:
    """Facts about a data set: a row of the table."""

    title: str
    files: tuple[File, ...]
    read: Reader
    num_classes: int
    counts: Mapping[str, int]
    """Images of each of the publisher's splits."""
    source: str
    """The publisher's page."""
    licence: str
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})
    """From our splits to the publisher's."""


@dataclass(frozen=True)
class LabelSet:
    """Other labels of images that are published elsewhere, or images for a test alone."""

    files: tuple[File, ...]
    read: Callable[[DatasetFiles], Listing]


def check_counts(name: str, dataset: NamedDataset, published: Published) -> list[str]:
    """Return the differences from what the publisher states."""
    complaints = []
    if len(published.classes) != dataset.num_classes:
        complaints.append(
            f"{name} has {len(published.classes)} classes here, {dataset.num_classes} as published"
        )
    for part, wanted in dataset.counts.items():
        found = len(published.parts[part].labels) if part in published.parts else 0
        if found != wanted:
            complaints.append(f"{name} has {found:,} {part} images here, {wanted:,} as published")
    return complaints


def keys_of_numbers(count: int) -> list[str]:
    """Return the keys of images that are only numbered."""
    return [str(index) for index in range(count)]


def class_names(name: str) -> tuple[str, ...]:
    """Return the names of a data set's classes, in order."""
    return tuple(_all_names()[name])


@functools.cache
def _all_names() -> dict[str, list[str]]:
    path = Path(__file__).with_name("class_names.json")
    names: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return names
