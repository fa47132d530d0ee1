"""One shard of a pack: a tar of images and labels, and its index."""

import io
import json
import os
import tarfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitral.data.encode import as_file, is_shrunk, shrink, suffix_of
from vitral.data.finding import Finding
from vitral.data.images import Examples, ImageData
from vitral.data.sources.listing import Skipped
from vitral.data.stores.packed import ROW, ShardIndex, number_kinds, save_index
from vitral.data.stores.texts import Texts
from vitral.data.survey import look_into_content
from vitral.errors import DataError, RequestError
from vitral.files.atomic import new_file

_CHUNK = 256


@dataclass(frozen=True)
class PackSettings:
    """What becomes of the images."""

    resize: int = 0
    """Pixels of the shorter side that larger images are shrunk to; 0: all keep their bytes."""
    quality: int = 90
    """Of the JPEG that a shrunk image becomes, 1 to 100."""
    images_per_shard: int = 5000
    """At most."""

    def __post_init__(self) -> None:
        if self.resize < 0 or self.images_per_shard < 1:
            raise RequestError(
                f"resize={self.resize}, images_per_shard={self.images_per_shard}: give 0 or more "
                "pixels, and one image or more"
            )
        if not 1 <= self.quality <= 100:
            raise RequestError(f"quality={self.quality}: give 1 to 100")

    def describe(self) -> str:
        """Say in a line what becomes of the images."""
        if not self.resize:
            return "every image has the bytes of its source"
        return (
            f"images with a shorter side above {self.resize} pixels were shrunk to it (bicubic, "
            f"antialias) and encoded as JPEG of quality {self.quality}, 4:2:0; smaller ones, and "
            "those with transparency, a palette or more than 8 bits have the bytes of their source"
        )


@dataclass(frozen=True)
class _Packed:
    """One image as it goes into a shard."""

    content: bytes
    suffix: str
    finding: Finding


def write_shard(
    path: Path,
    data: ImageData,
    examples: Examples,
    indices: np.ndarray,
    settings: PackSettings,
) -> None:
    """Write a tar and, when it is whole, its index.

    Args:
        path: of the tar.
        data: of which the examples are.
        examples: of a split.
        indices: those of the shard, in its order.
        settings: what becomes of the images.
    """

    def prepare(index: int) -> _Packed | Skipped:
        return _prepare(data, examples, index, settings)

    rows: list[tuple[int, int, int]] = []
    kept: list[int] = []
    findings: list[Finding] = []
    skipped: list[Skipped] = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        new_file(path) as aside,
        tarfile.open(aside, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for start in range(0, len(indices), _CHUNK):
            some = indices[start : start + _CHUNK].tolist()
            for index, own in zip(some, pool.map(prepare, some), strict=True):
                if isinstance(own, Skipped):
                    skipped.append(own)
                    continue
                key = f"{len(kept):08}"
                rows.append(_add(tar, key + own.suffix, own.content))
                _add(tar, *_label_file(key, examples.labels[index], data))
                kept.append(index)
                findings.append(own.finding)
    chosen = examples.select(np.array(kept, np.int64))
    with new_file(path.with_suffix(".npz")) as aside:
        save_index(aside, _index(data, chosen, rows, findings, skipped))


def _prepare(
    data: ImageData, examples: Examples, index: int, settings: PackSettings
) -> _Packed | Skipped:
    """Read an image and make of it what is packed; decoded once as it will be read."""
    finding = data.findings[int(examples.numbers[index])]
    try:
        content = as_file(examples.read(index))
        if settings.resize:
            finding = finding if finding.digest else _look(content, data)
            if not finding.problem and is_shrunk(finding, shorter=settings.resize):
                content = shrink(
                    content, finding, shorter=settings.resize, quality=settings.quality
                )
    except (OSError, DataError) as error:
        return Skipped(examples.name(index), f"can't be read: {error}")
    finding = _look(content, data)
    if finding.problem:
        return Skipped(examples.name(index), finding.problem)
    return _Packed(content, suffix_of(finding), finding)


def _look(content: bytes, data: ImageData) -> Finding:
    return look_into_content(content, channels=data.channels)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> tuple[int, int, int]:
    """Add a member, equal for equal contents; return where it lies, its bytes and their CRC-32."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(member, io.BytesIO(content))
    return offset, len(content), zlib.crc32(content)


def _label_file(key: str, label: np.ndarray, data: ImageData) -> tuple[str, bytes]:
    """Return the file that tells other tools an image's class, or classes."""
    if not data.is_multi_label:
        return f"{key}.cls", str(int(label)).encode()
    names = [data.classes[number] for number in np.flatnonzero(label).tolist()]
    return f"{key}.json", json.dumps({"labels": names}, ensure_ascii=False).encode()


def _index(
    data: ImageData,
    chosen: Examples,
    places: Sequence[tuple[int, int, int]],
    findings: Sequence[Finding],
    skipped: list[Skipped],
) -> ShardIndex:
    """Return the index of a shard of chosen examples, in its order."""
    rows = np.zeros(len(places), ROW)
    for name, column in zip(("offset", "bytes", "crc"), zip(*places, strict=True), strict=False):
        rows[name] = column
    kinds, rows["kind"] = number_kinds(findings)
    for name in ("digest", "visual", "height", "width", "lowest", "highest"):
        rows[name] = [getattr(finding, name) for finding in findings]
    is_multi = data.is_multi_label
    rows["label"] = chosen.labels.sum(axis=1) if is_multi else chosen.labels
    numbers, groups = chosen.numbers.tolist(), data.listing.groups
    return ShardIndex(
        rows,
        Texts.of([chosen.store.names[number] for number in numbers]),
        kinds,
        labels=np.nonzero(chosen.labels)[1] if is_multi else None,
        groups=Texts.of([groups[number] for number in numbers]) if groups else None,
        skipped=[(item.name, item.reason) for item in skipped],
    )
