"""DMLab frames, as VTAB made them of the games of DeepMind Lab.

Source: https://github.com/google-research/task_adaptation; TensorFlow Datasets 4.4.0,
`image_classification/dmlab.py`.
"""

import re
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitral.data.datasets.published import Part, Place, Published
from vitral.data.sources.folders import walk_files
from vitral.data.stores.archives import TarStore
from vitral.data.stores.pieces import PieceStore
from vitral.errors import DataError
from vitral.files.tfrecord import Span, find_records, read_features

ARCHIVE = "dmlab.tar.gz"
CLASSES = tuple(map(str, range(6)))
"""Close, far or very far, of a good or a bad object; which is which is not published."""
SPLITS = ("train", "validation", "test")
_SHARD = re.compile(rf"dmlab-({'|'.join(SPLITS)})\.tfrecord.*")


class Shard(NamedTuple):
    """A file of records: by itself, or a part of a tar."""

    split: str
    name: str
    path: Path
    span: Span


class Frame(NamedTuple):
    """An example: its key, label, and where its image lies."""

    key: str
    label: str
    span: Span


def read_dmlab(place: Place) -> Published:
    """Read the records of `dmlab.tar.gz`, or of the files that it unpacks to, in a folder `dmlab`.

    Raises:
        DataError: files of a split are missing, are damaged, or hold something else.
    """
    path = place.path(ARCHIVE)
    shards = find_shards(path)
    return Published(CLASSES, {split: _part(shards, split, where=path) for split in SPLITS})


def find_shards(path: Path) -> list[Shard]:
    """Return the files `dmlab-SPLIT.tfrecord*` of a tar or folder, in the order of names."""
    files: list[tuple[str, Path, Span]]
    if path.is_dir():
        paths = [path / name for name in walk_files(path)[0]]
        files = [(own.name, own, (0, own.stat().st_size)) for own in paths]
    else:
        store = TarStore(path)
        files = [
            (Path(name).name, store.plain_path, store.span(number))
            for number, name in enumerate(store.names)
        ]
    return [
        Shard(match[1], name, own, span)
        for name, own, span in sorted(files)
        if (match := _SHARD.fullmatch(name))
    ]


def _part(shards: list[Shard], split: str, *, where: Path) -> Part:
    own = [shard for shard in shards if shard.split == split]
    if not own:
        raise DataError(
            f"{where} has no files dmlab-{split}.tfrecord*: it is not what the publisher "
            "distributes"
        )
    found = [
        (number, frame)
        for number, shard in enumerate(own)
        for frame in _frames(shard, where=f"{where}: {shard.name}")
    ]
    places = [(number, f.span[0], f.span[1] - f.span[0]) for number, f in found]
    keys = [frame.key for _, frame in found]
    store = PieceStore(
        [shard.path for shard in own], np.array(places, np.int64).reshape(-1, 3), names=keys
    )
    return Part(store, [frame.label for _, frame in found], keys)


def _frames(shard: Shard, *, where: str) -> Iterator[Frame]:
    if shard.span[0] == shard.span[1]:
        return  # an empty file can't be mapped
    # Of a mapped file only what is looked at is read from the disk: not the images.
    with shard.path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        for record in find_records(content, span=shard.span, where=where):
            features = read_features(content, span=record, where=where)
            image, name = features.get("image"), features.get("filename")
            label = features.get("label")
            if not isinstance(image, tuple) or not isinstance(name, tuple):
                raise DataError(
                    f"{where} holds features {', '.join(sorted(features)) or 'none'}, wanted "
                    "bytes `image` and `filename` and a whole number `label`"
                )
            if not isinstance(label, int) or label >= len(CLASSES):
                raise DataError(f"{where}: label {label}, wanted 0 to {len(CLASSES) - 1}")
            key = content[slice(*name)].decode("utf-8", errors="surrogateescape")
            yield Frame(key, CLASSES[label], image)
