"""DMLab frames, as VTAB made them of the games of DeepMind Lab.

They lie in TensorFlow's record files, which are read without TensorFlow. A record is its length (8
bytes), the length's checksum (4), its bytes, and their checksum (4). An example is a message of
protocol buffers: of features, each a name and a list of bytes, floats or whole numbers, of which
the first value is read.

Sources: https://github.com/google-research/task_adaptation; TensorFlow Datasets 4.4.0,
`image_classification/dmlab.py`; TensorFlow, `core/lib/io/record_writer.h`,
`core/lib/hash/crc32c.h`, `core/example/{example,feature}.proto`;
https://protobuf.dev/programming-guides/encoding.
"""

import functools
import re
import struct
from collections.abc import Iterator, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitral.data.datasets.published import DatasetFiles, File, Part, Published
from vitral.data.datasets.vtab import Task
from vitral.data.sources.archives import TarStore
from vitral.data.sources.folders import walk_files
from vitral.data.sources.store import Content, file_stamp
from vitral.errors import DataError

Buffer = bytes | mmap
Span = tuple[int, int]
"""Start and end of something in a buffer."""


def find_records(buffer: Buffer, *, span: Span, where: str) -> Iterator[Span]:
    """Yield the span of each record's bytes.

    Only the checksum of the length is compared: that of the content would need all its bytes.

    Args:
        buffer: with the file in it.
        span: of the file.
        where: it comes from, for errors.

    Raises:
        DataError: a length is damaged, or the file is cut short.
    """
    start, end = span
    while start < end:
        header = buffer[start : min(start + _LENGTH_BYTES + _CHECKSUM_BYTES, end)]
        first = start + _LENGTH_BYTES + _CHECKSUM_BYTES
        length, checksum = struct.unpack("<QI", header.ljust(first - start, b"\0"))
        if masked_crc32c(header[:_LENGTH_BYTES]) != checksum:
            raise DataError(f"{where} is damaged: there is no record at byte {start - span[0]:,}")
        start = first + length + _CHECKSUM_BYTES
        if start > end:
            raise DataError(
                f"{where} is cut short: the record at byte {first - span[0]:,} has {length:,} bytes"
            )
        yield first, first + length


def masked_crc32c(content: bytes) -> int:
    """Return TensorFlow's checksum: CRC-32 of Castagnoli's polynomial, rotated and offset."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in content:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read_features(buffer: Buffer, *, span: Span, where: str) -> dict[str, int | Span]:
    """Return the first value of each feature of an example: a whole number, or a span of bytes.

    Args:
        buffer: with the example in it.
        span: of the example.
        where: it comes from, for errors.

    Raises:
        DataError: it is no example.
    """
    try:
        return {
            name: value
            for _, features in _fields(buffer, span, wanted=1)
            for _, entry in _fields(buffer, features, wanted=1)
            for name, value in [_feature(buffer, entry)]
            if value is not None
        }
    except (ValueError, IndexError, KeyError) as error:
        raise DataError(f"{where} holds a record that is no example: {error!r}") from None


def _feature(buffer: Buffer, entry: Span) -> tuple[str, int | Span | None]:
    """Return the name and the first value of an entry; None for floats and empty lists."""
    parts: dict[int, Span] = dict(_fields(buffer, entry))
    start, end = parts[1]
    name = buffer[start:end].decode()
    for kind, values in _fields(buffer, parts.get(2, (0, 0))):
        if kind == _BYTES_LIST:
            return name, next((item for _, item in _fields(buffer, values, wanted=1)), None)
        if kind == _INT_LIST:
            # Whole numbers are stored consecutively (packed), or each in a separate field.
            item = next((item for _, item in _fields(buffer, values, wanted=1)), None)
            return name, None if item is None or item[0] == item[1] else _varint(buffer, *item)[0]
    return name, None


def _fields(buffer: Buffer, span: Span, *, wanted: int | None = None) -> Iterator[tuple[int, Span]]:
    """Yield the number of each field of a message, and the span of its value."""
    start, end = span
    while start < end:
        tag, start = _varint(buffer, start, end)
        kind = tag & 7
        if kind == _DELIMITED:
            length, start = _varint(buffer, start, end)
        elif kind == _VARINT:
            length = _varint(buffer, start, end)[1] - start
        else:
            length = {_FIXED64: 8, _FIXED32: 4}[kind]
        if start + length > end:
            raise ValueError("a field is longer than what holds it")
        if wanted in (None, tag >> 3):
            yield tag >> 3, (start, start + length)
        start += length


def _varint(buffer: Buffer, start: int, end: int) -> tuple[int, int]:
    """Return a number stored as seven bits a byte, lowest first, and where it ends."""
    value = 0
    for offset in range(start, min(start + 10, end)):
        value |= (buffer[offset] & 0x7F) << 7 * (offset - start)
        if buffer[offset] < 0x80:
            return value, offset + 1
    raise ValueError("a number does not end")


@functools.cache
def _crc_table() -> tuple[int, ...]:
    return tuple(_shifted(byte) for byte in range(256))


def _shifted(crc: int) -> int:
    for _ in range(8):
        crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc


ARCHIVE = "dmlab.tar.gz"
CLASSES = tuple(map(str, range(6)))
"""Close, far or very far, of a good or a bad object; which is which is not published."""
SPLITS = ("train", "validation", "test")
_SHARD = re.compile(rf"dmlab-({'|'.join(SPLITS)})\.tfrecord.*")
FILES = (
    File(
        "dmlab.tar.gz",
        "https://storage.googleapis.com/dmlab-vtab/dmlab.tar.gz",
        "638b18fa69a5d61bbc310cd0b87ac603a39f41de0fdb07b6e77de274a24480a4",
        unpacked="dmlab",
    ),
)


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


def read_dmlab(place: DatasetFiles) -> Published:
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
        files = [(file.name, file, (0, file.stat().st_size)) for file in paths]
    else:
        store = TarStore(path)
        files = [
            (Path(name).name, store.plain_path, store.span(index))
            for index, name in enumerate(store.names)
        ]
    return [
        Shard(match[1], name, file, span)
        for name, file, span in sorted(files)
        if (match := _SHARD.fullmatch(name))
    ]


def _part(shards: list[Shard], split: str, *, where: Path) -> Part:
    selected = [shard for shard in shards if shard.split == split]
    if not selected:
        raise DataError(
            f"{where} has no files dmlab-{split}.tfrecord*: it is not what the publisher "
            "distributes"
        )
    found = [
        (index, frame)
        for index, shard in enumerate(selected)
        for frame in _frames(shard, where=f"{where}: {shard.name}")
    ]
    pieces = [(index, f.span[0], f.span[1] - f.span[0]) for index, f in found]
    keys = [frame.key for _, frame in found]
    store = PieceStore(
        [shard.path for shard in selected], np.array(pieces, np.int64).reshape(-1, 3), names=keys
    )
    return Part(store, [frame.label for _, frame in found], keys)


def _frames(shard: Shard, *, where: str) -> Iterator[Frame]:
    if shard.span[0] == shard.span[1]:
        return  # an empty file can't be mapped
    # Of a mapped file only what is accessed is read from the disk: not the images.
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


class PieceStore:
    """Pieces of files, read at their offsets."""

    def __init__(self, paths: Sequence[Path], places: np.ndarray, *, names: Sequence[str]) -> None:
        """Store where the pieces are.

        Args:
            paths: of the files.
            places: (N, 3), int64: the index of the file, the offset in it, and the number of bytes.
            names: of the N pieces.
        """
        self._paths, self._places, self.names = paths, places, names
        self._stamps = [file_stamp(path) for path in paths]

    def read(self, number: int) -> Content:
        """Return a piece's bytes."""
        file_id, offset, size = self._places[number].tolist()
        with self._paths[file_id].open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def stamp(self, number: int) -> str | None:
        """Return the file's size and time of change, and the offset of the piece."""
        file_id, offset, _ = self._places[number].tolist()
        return f"{self._stamps[file_id]}-{offset}"

    def blocks(self) -> np.ndarray | None:
        """Each piece is read by itself."""
        return None


TASKS = {
    "dmlab": Task(
        group="structured",
        read=read_dmlab,
        files=FILES,
        num_classes=6,
        train=("train", 0, 100),
        validation=("validation", 0, 100),
        test=("test", 0, 100),
        num_test=22_735,
        tree=("dmlab",),
        dataset="dmlab",
        crop=False,
    ),
}
_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_BYTES_LIST, _INT_LIST = 1, 3
