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
from PIL import Image

from vitral.config.preprocessing import default_preprocessing
from vitral.data.dataset import ImageDataset
from vitral.data.decode import decode_image
from vitral.data.examples import Examples
from vitral.data.file_types import SUFFIXES
from vitral.data.resize import resize
from vitral.data.scan import inspect_content
from vitral.data.sources.listing import FileInfo, Skipped
from vitral.data.sources.packed import ROW, ShardIndex, number_kinds, save_index
from vitral.data.sources.store import Content, Texts
from vitral.errors import DataError, RequestError
from vitral.files.atomic import new_file

_CHUNK = 256


@dataclass(frozen=True)
class PackSettings:
    """How images are packed."""

    resize: int = 0
    """Pixels of the shorter side that larger images are shrunk to; 0: all keep their bytes."""
    quality: int = 90
    """JPEG quality of shrunk images, 1 to 100."""
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
        """Describe in a line how images are packed."""
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
    file_info: FileInfo


def write_shard(
    path: Path,
    data: ImageDataset,
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
        settings: how images are packed.
    """

    def prepare(index: int) -> _Packed | Skipped:
        return _prepare(data, examples, index, settings)

    members: list[tuple[int, int, int]] = []
    packed: list[int] = []
    file_infos: list[FileInfo] = []
    skipped: list[Skipped] = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        new_file(path) as temporary,
        tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for start in range(0, len(indices), _CHUNK):
            chunk = indices[start : start + _CHUNK].tolist()
            for index, result in zip(chunk, pool.map(prepare, chunk), strict=True):
                if isinstance(result, Skipped):
                    skipped.append(result)
                    continue
                key = f"{len(packed):08}"
                members.append(_add(tar, key + result.suffix, result.content))
                _add(tar, *_label_file(key, examples.labels[index], data))
                packed.append(index)
                file_infos.append(result.file_info)
    chosen = examples.select(np.array(packed, np.int64))
    with new_file(path.with_suffix(".npz")) as temporary:
        save_index(temporary, _index(data, chosen, members, file_infos, skipped))


def _prepare(
    data: ImageDataset, examples: Examples, index: int, settings: PackSettings
) -> _Packed | Skipped:
    """Read an image and prepare it for the shard; it is decoded once to check it."""
    file_info = data.file_infos[int(examples.file_ids[index])]
    try:
        content = as_file(examples.read(index))
        if settings.resize:
            file_info = file_info if file_info.digest else _look(content, data)
            if not file_info.problem and is_shrunk(file_info, shorter=settings.resize):
                content = shrink(
                    content, file_info, shorter=settings.resize, quality=settings.quality
                )
    except (OSError, DataError) as error:
        return Skipped(examples.name(index), f"can't be read: {error}")
    file_info = _look(content, data)
    if file_info.problem:
        return Skipped(examples.name(index), file_info.problem)
    return _Packed(content, suffix_of(file_info), file_info)


def _look(content: bytes, data: ImageDataset) -> FileInfo:
    return inspect_content(content, channels=data.channels)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> tuple[int, int, int]:
    """Add a member, equal for equal contents; return its offset, size and CRC-32."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(member, io.BytesIO(content))
    return offset, len(content), zlib.crc32(content)


def _label_file(key: str, label: np.ndarray, data: ImageDataset) -> tuple[str, bytes]:
    """Return the file that states an image's class, or classes, for other tools."""
    if not data.is_multi_label:
        return f"{key}.cls", str(int(label)).encode()
    names = [data.classes[index] for index in np.flatnonzero(label).tolist()]
    return f"{key}.json", json.dumps({"labels": names}, ensure_ascii=False).encode()


def _index(
    data: ImageDataset,
    chosen: Examples,
    members: Sequence[tuple[int, int, int]],
    file_infos: Sequence[FileInfo],
    skipped: list[Skipped],
) -> ShardIndex:
    """Return the index of a shard of chosen examples, in its order."""
    rows = np.zeros(len(members), ROW)
    for name, column in zip(("offset", "bytes", "crc"), zip(*members, strict=True), strict=False):
        rows[name] = column
    kinds, rows["kind"] = number_kinds(file_infos)
    for name in ("digest", "visual", "height", "width", "lowest", "highest"):
        rows[name] = [getattr(file_info, name) for file_info in file_infos]
    is_multi = data.is_multi_label
    rows["label"] = chosen.labels.sum(axis=1) if is_multi else chosen.labels
    file_ids, groups = chosen.file_ids.tolist(), data.listing.groups
    return ShardIndex(
        rows,
        Texts.of([chosen.store.names[file_id] for file_id in file_ids]),
        kinds,
        labels=np.nonzero(chosen.labels)[1] if is_multi else None,
        groups=Texts.of([groups[file_id] for file_id in file_ids]) if groups else None,
        skipped=[(item.name, item.reason) for item in skipped],
    )


_SHRUNK_MODES = {"1": 1, "L": 1, "RGB": 3, "CMYK": 3, "YCbCr": 3}
"""Channels by mode of the files that may become JPEG: without transparency or palette."""


def as_file(content: Content) -> bytes:
    """Return a file's bytes as they are, pixels as those of a `.npy`."""
    if isinstance(content, bytes):
        return content
    file = io.BytesIO()
    np.save(file, content, allow_pickle=False)
    return file.getvalue()


def suffix_of(file_info: FileInfo) -> str:
    """Return the usual ending of a file's kind."""
    return SUFFIXES.get(file_info.format, SUFFIXES["NumPy"])[0]


def is_shrunk(file_info: FileInfo, *, shorter: int) -> bool:
    """Return whether a file is larger than wanted and of a kind that can be shrunk."""
    is_larger = min(file_info.height, file_info.width) > shorter
    is_picture = file_info.format != "array" and file_info.mode in _SHRUNK_MODES
    return is_larger and is_picture and not file_info.is_deep


def shrink(content: bytes, file_info: FileInfo, *, shorter: int, quality: int) -> bytes:
    """Shrink a picture to a shorter side and encode it as JPEG, grey ones as grey.

    Args:
        content: of a file for which `is_shrunk`.
        file_info: of it.
        shorter: pixels.
        quality: 1 to 100; chroma is 4:2:0.
    """
    channels = _SHRUNK_MODES[file_info.mode]
    pixels = decode_image(content, channels=channels)
    height, width = pixels.shape[:2]
    scale = shorter / min(height, width)
    size = (max(shorter, round(height * scale)), max(shorter, round(width * scale)))
    preprocessing = default_preprocessing(size, channels=channels, interpolation="bicubic")
    return encode_jpeg(resize(pixels, size, preprocessing), quality=quality)


def encode_jpeg(pixels: np.ndarray, *, quality: int) -> bytes:
    """Encode grey (H, W, 1) or RGB (H, W, 3) uint8 as JPEG, chroma 4:2:0."""
    # Pillow's own settings lose less than those of simplejpeg, whose transform is the fast one.
    file = io.BytesIO()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()
