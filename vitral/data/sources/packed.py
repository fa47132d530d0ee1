"""Folders of packed shards: plain tars, each with an index of where its images lie.

The index `train-00000.npz` of `train-00000.tar` holds `rows`, one of ROW for each image in the
tar's order; `names`, those of the source; `notes`, JSON of the kinds that rows refer to and of what
was left out; `labels`, where images may have any classes; `groups`, where there are some.
"""

import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.sources.listing import FileInfo, Label, Listing
from vitral.data.sources.store import Content, Texts, file_stamp
from vitral.errors import DataError

ROW = np.dtype(
    [
        ("offset", "<i8"),
        ("bytes", "<i8"),
        ("crc", "<u4"),
        ("digest", "S32"),
        ("visual", "S16"),
        ("label", "<i4"),
        ("kind", "<i4"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("lowest", "<f8"),
        ("highest", "<f8"),
    ]
)
"""Where an image's bytes are, their CRC-32, and what the survey found of them; the class number, or
where images may have any classes how many it has."""
_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises where an index is damaged."""
_OF_KIND = ("format", "mode", "turned", "num_frames", "depth", "is_flat")
"""The fields of a finding that many images share."""


@dataclass(frozen=True)
class ShardIndex:
    """What the index of one shard says."""

    rows: np.ndarray
    names: Texts
    kinds: list[dict[str, Any]]
    labels: np.ndarray | None = None
    """The class numbers of all images, one image after the other, where they may have any."""
    groups: Texts | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Names and reasons of images that could not be packed."""

    def file_info(self, number: int) -> FileInfo:
        """Return the facts about an image that the survey found."""
        row = self.rows[number]
        return FileInfo(
            digest=row["digest"].decode(),
            visual=row["visual"].decode(),
            height=int(row["height"]),
            width=int(row["width"]),
            lowest=float(row["lowest"]),
            highest=float(row["highest"]),
            **self.kinds[row["kind"]],
        )


def number_kinds(file_infos: Sequence[FileInfo]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the different kinds of findings, and the index of each finding's kind."""
    kinds = [{key: asdict(file_info)[key] for key in _OF_KIND} for file_info in file_infos]
    texts = [json.dumps(kind) for kind in kinds]
    different = list(dict.fromkeys(texts))
    index_of = {text: index for index, text in enumerate(different)}
    return [json.loads(text) for text in different], [index_of[text] for text in texts]


def save_index(path: Path, index: ShardIndex) -> None:
    """Write the index of a shard."""
    arrays = {
        "rows": index.rows,
        "names": index.names.content,
        "name_ends": index.names.ends,
        "notes": np.array([json.dumps({"kinds": index.kinds, "skipped": index.skipped})]),
    }
    if index.labels is not None:
        arrays["labels"] = index.labels.astype(np.int32)
    if index.groups is not None:
        arrays |= {"groups": index.groups.content, "group_ends": index.groups.ends}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_index(path: Path) -> ShardIndex:
    """Read the index of a shard.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
        notes = json.loads(str(arrays["notes"][0]))
        groups = arrays.get("groups")
        return ShardIndex(
            arrays["rows"].astype(ROW, casting="equiv"),
            Texts(arrays["names"], arrays["name_ends"]),
            notes["kinds"],
            arrays.get("labels"),
            None if groups is None else Texts(groups, arrays["group_ends"]),
            [(name, reason) for name, reason in notes["skipped"]],
        )
    except FileNotFoundError:
        raise DataError(f"there is no {path}, the index of a shard: pack the data again") from None
    except _DAMAGE as error:
        raise DataError(f"{path} is a damaged index: {error!r}: pack the data again") from None


class PackedStore:
    """The images of packed shards, read at their offsets and checked against their CRC-32."""

    def __init__(self, paths: Sequence[Path], indices: Sequence[ShardIndex]) -> None:
        """Open shards.

        Args:
            paths: of the tars.
            indices: of each.

        Raises:
            DataError: a shard is missing, or shorter than its index says.
        """
        self._paths, self._indices = paths, indices
        self._starts = np.cumsum([0, *(len(index.rows) for index in indices)])
        self.names: Sequence[str] = Texts.joined([index.names for index in indices])
        self._stamps = []
        for path, index in zip(paths, indices, strict=True):
            try:
                self._stamps.append(file_stamp(path))
                num_bytes = path.stat().st_size
            except OSError as error:
                raise DataError(f"{path} can't be read: {error.strerror}") from None
            if len(index.rows) and num_bytes < int(
                (index.rows["offset"] + index.rows["bytes"]).max()
            ):
                raise DataError(f"{path} is cut short: it has {num_bytes:,} bytes")

    def read(self, number: int) -> Content:
        """Return an image's bytes."""
        shard, row = self._find(number)
        entry = self._indices[shard].rows[row]
        with self._paths[shard].open("rb") as file:
            file.seek(int(entry["offset"]))
            content = file.read(int(entry["bytes"]))
        if zlib.crc32(content) != int(entry["crc"]):
            raise OSError(f"damaged in {self._paths[shard].name}: its checksum is another one")
        return content

    def stamp(self, number: int) -> str | None:
        """Return the shard's size and time of change, and the position in it."""
        shard, row = self._find(number)
        return f"{self._stamps[shard]}-{row}"

    def blocks(self) -> np.ndarray | None:
        """Each image is read by itself."""
        return None

    def _find(self, number: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        return shard, number - int(self._starts[shard])


class PackedFileInfos(Sequence[FileInfo]):
    """The facts about the images of packed shards, each built when it is accessed."""

    def __init__(self, indices: Sequence[ShardIndex]) -> None:
        self._indices = indices
        self._starts = np.cumsum([0, *(len(index.rows) for index in indices)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._indices[shard].file_info(index - int(self._starts[shard]))


PACK_NAME = "pack.json"
FORMAT_VERSION = 1


def is_packed(folder: Path) -> bool:
    """Return whether a folder was written by `vitral data pack`."""
    return (folder / PACK_NAME).is_file()


def read_pack(folder: Path) -> dict[str, Any]:
    """Read the description of a pack.

    Raises:
        DataError: it is damaged, or of a later version.
    """
    path = folder / PACK_NAME
    try:
        pack: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = pack["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} can't be read: {error!r}") from None
    if version != FORMAT_VERSION:
        raise DataError(f"{path} is of version {version}, this Vitral reads {FORMAT_VERSION}")
    return pack


def list_packed(folder: Path) -> Listing:
    """List the images of packed shards by their indices; no image is read.

    Raises:
        DataError: the pack is not complete, or damaged.
    """
    pack = read_pack(folder)
    if not pack["complete"]:
        raise DataError(
            f"{folder} is not packed to its end: the same `vitral data pack` command goes on"
        )
    shards, classes = pack["shards"], tuple(pack["classes"])
    paths = [folder / shard["name"] for shard in shards]
    indices = [load_index(path.with_suffix(".npz")) for path in paths]
    groups = None
    if any(index.groups is not None for index in indices):
        groups = [group for index in indices for group in index.groups or index.names]
    return Listing(
        str(folder.resolve()),
        PackedStore(paths, indices),
        [label for index in indices for label in _labels(index, classes)],
        [shard["split"] for shard, index in zip(shards, indices, strict=True) for _ in index.rows],
        classes=classes,
        notes=pack["notes"],
        groups=groups,
        file_infos=PackedFileInfos(indices),
    )


def _labels(index: ShardIndex, classes: tuple[str, ...]) -> list[Label]:
    column = index.rows["label"]
    if index.labels is None:
        return [classes[label] for label in column.tolist()]
    names = [classes[label] for label in index.labels.tolist()]
    ends = np.cumsum(column).tolist()
    return [tuple(names[first:end]) for first, end in zip([0, *ends], ends, strict=False)]
