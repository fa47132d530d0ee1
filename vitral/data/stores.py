"""Where images are: a folder, a tar, a zip, an array; each is read by number, from any thread."""

import bisect
import gzip
import hashlib
import itertools
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from vitral.data.decode import as_shown, to_channels
from vitral.data.levels import check_deep
from vitral.errors import DataError
from vitral.files import atomic
from vitral.files.places import cache_dir

Content = bytes | np.ndarray
_ZIP_HEADER_BYTES = 30
ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")


class Store(Protocol):
    """Images by number."""

    names: Sequence[str]

    def read(self, number: int) -> Content:
        """Return a file's bytes, or pixels (H, W, C). Raises OSError."""
        ...

    def stamp(self, number: int) -> str | None:
        """Return what changes when the content does, such as size and time; None: not known."""
        ...


class FolderStore:
    """Files below a folder, by relative path."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root = root
        self.names = names

    def read(self, number: int) -> Content:
        """Return a file's bytes."""
        return (self.root / self.names[number]).read_bytes()

    def stamp(self, number: int) -> str | None:
        """Return the file's size and time of change."""
        try:
            stat = (self.root / self.names[number]).stat()
        except OSError:
            return None
        return f"{stat.st_size}-{stat.st_mtime_ns}"


class TarStore:
    """Members of a tar, read at their offsets; a compressed tar is unpacked once into the cache."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._plain_path = _uncompressed(path)
        try:
            with tarfile.open(self._plain_path, "r:") as archive:
                members = [m for m in archive if m.isfile() or m.islnk() or m.issym()]
                places = [_place_in_tar(archive, member) for member in members]
                _check_end(archive)
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"{path} can't be read as a tar: {error}") from None
        self.names: Sequence[str] = [member.name.removeprefix("./") for member in members]
        self._links = {n: m.linkname for n, m in enumerate(members) if places[n][1] < 0}
        self._places = np.array(places, np.int64).reshape(-1, 2)
        self._stamp = _file_stamp(path)

    def read(self, number: int) -> Content:
        """Return a member's bytes."""
        if number in self._links:
            raise OSError(f"a link to {self._links[number]}, which is not followed in archives")
        offset, size = (int(value) for value in self._places[number])
        with self._plain_path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def stamp(self, number: int) -> str | None:
        """Return the archive's size and time of change."""
        return self._stamp


class ZipStore:
    """Members of a zip, read at their offsets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._members = [info for info in archive.infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{path} can't be read as a zip: {error}") from None
        self.names: Sequence[str] = [info.filename for info in self._members]
        self._stamp = _file_stamp(path)

    def read(self, number: int) -> Content:
        """Return a member's bytes."""
        member = self._members[number]
        if member.flag_bits & 1:
            raise OSError("the member is encrypted")
        with self.path.open("rb") as file:
            file.seek(member.header_offset)
            header = file.read(_ZIP_HEADER_BYTES)
            name_and_extra_bytes = sum(struct.unpack("<HH", header[-4:]))
            file.seek(name_and_extra_bytes, os.SEEK_CUR)
            content = file.read(member.compress_size)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise OSError(f"compressed by method {member.compress_type}, only deflate is read")
        try:
            if member.compress_type == zipfile.ZIP_DEFLATED:
                content = zlib.decompress(content, wbits=-zlib.MAX_WBITS)
        except zlib.error as error:
            raise OSError(f"a damaged member: {error}") from None
        if zlib.crc32(content) != member.CRC:
            raise OSError("a damaged member: its checksum is not the one in the zip")
        return content

    def stamp(self, number: int) -> str | None:
        """Return the archive's size and time of change."""
        return self._stamp


class ArrayStore:
    """Images in one array (N, H, W) or (N, H, W, C), of eight bits or more."""

    def __init__(self, images: np.ndarray, *, path: str) -> None:
        if images.ndim not in (3, 4):
            raise DataError(
                f"{path}: images of shape {images.shape}, wanted (N, H, W) or (N, H, W, C)"
            )
        try:
            images = check_deep(images)
        except DataError as error:
            raise DataError(f"{path}: images of {error}") from None
        if images.ndim == 4 and images.shape[1] in (1, 3, 4) and images.shape[3] > 4:
            raise DataError(
                f"{path}: images of shape {images.shape} look like (N, C, H, W), wanted "
                "(N, H, W, C): transpose them with images.transpose(0, 2, 3, 1)"
            )
        self._images = images[..., None] if images.ndim == 3 else images
        self.names: Sequence[str] = _Numbered(len(images))

    def read(self, number: int) -> Content:
        """Return an image's pixels."""
        pixels: np.ndarray = self._images[number]
        return pixels

    def stamp(self, number: int) -> str | None:
        """Arrays are not cached."""
        return None


class ObjectStore:
    """Any sized object with [i] -> (image, label), such as a torch data set."""

    def __init__(self, examples: Any) -> None:
        self._examples = examples
        self.names: Sequence[str] = _Numbered(len(examples))

    def read(self, number: int) -> Content:
        """Return an image's pixels."""
        return as_pixels(self._examples[number][0])

    def stamp(self, number: int) -> str | None:
        """Objects are not cached."""
        return None


class JoinedStore:
    """Several stores, one after the other; names carry a prefix each."""

    def __init__(self, stores: Sequence[Store], prefixes: Sequence[str]) -> None:
        self._stores = stores
        self._starts = [0, *itertools.accumulate(len(store.names) for store in stores)]
        self.names: Sequence[str] = [
            prefix + name
            for store, prefix in zip(stores, prefixes, strict=True)
            for name in store.names
        ]

    def read(self, number: int) -> Content:
        """Return a file's bytes."""
        store, inner = self._find(number)
        return store.read(inner)

    def stamp(self, number: int) -> str | None:
        """Return what changes when the content does."""
        store, inner = self._find(number)
        return store.stamp(inner)

    def _find(self, number: int) -> tuple[Store, int]:
        which = bisect.bisect_right(self._starts, number) - 1
        return self._stores[which], number - self._starts[which]


class SelectedStore:
    """Some files of a store, renumbered."""

    def __init__(self, store: Store, numbers: Sequence[int]) -> None:
        self._store = store
        self._numbers = np.asarray(numbers, np.int64)
        self.names: Sequence[str] = [store.names[number] for number in numbers]

    def read(self, number: int) -> Content:
        """Return a file's content."""
        return self._store.read(int(self._numbers[number]))

    def stamp(self, number: int) -> str | None:
        """Return what changes when the content does."""
        return self._store.stamp(int(self._numbers[number]))


class _Numbered(Sequence[str]):
    """The names `0`, `1`, ... without a list of them."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [str(n) for n in range(*number.indices(self._length))]
        if not 0 <= number < self._length:
            raise IndexError(number)
        return str(number)


def open_archive(path: Path) -> Store:
    """Open a tar or zip.

    Raises:
        DataError: it is damaged.
    """
    return ZipStore(path) if path.suffix.lower() == ".zip" else TarStore(path)


def is_archive(path: Path) -> bool:
    """Say whether a path has the name of an archive that is read."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def as_pixels(image: Any, *, channels: int | None = None) -> np.ndarray:
    """Return any usual form of an image as pixels (H, W, C), uint8 or of more bits.

    Args:
        image: a PIL image; an array (H, W) or (H, W, C) of whole numbers; a tensor (C, H, W); of
            either also floats in 0..1.
        channels: of the model: a PIL image with transparency is put on white for 1 or 3.

    Raises:
        DataError: another type, or floats outside 0..1.
    """
    if hasattr(image, "permute"):  # a tensor; torch is not imported for arrays and files
        image = image.detach().cpu()
        array = image.permute(1, 2, 0).numpy() if image.ndim == 3 else image.numpy()
    elif isinstance(image, Image.Image):
        shown = as_shown(image)
        if channels in (1, 3) and shown.mode in ("LA", "RGBA"):
            return to_channels(shown, channels)
        array = np.asarray(shown)
    else:
        array = np.asarray(image)
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            raise DataError(
                f"an image of floats from {array.min():.3g} to {array.max():.3g}: give uint8, or "
                "floats in 0..1 before any normalisation"
            )
        array = np.rint(array * 255).astype(np.uint8)
    if array.ndim not in (2, 3):
        raise DataError(f"an image of shape {array.shape}: give (H, W) or (H, W, C)")
    array = check_deep(array)
    return array[:, :, None] if array.ndim == 2 else array


def _file_stamp(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _place_in_tar(archive: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[int, int]:
    """Return where a member's bytes begin and how many they are; -1 for a link to elsewhere."""
    if member.islnk():  # another name of a member before it
        try:
            member = archive.getmember(member.linkname)
        except KeyError:
            return 0, -1
    return (member.offset_data, member.size) if member.isfile() else (0, -1)


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise where `tarfile` takes a damaged header for the end of the archive."""
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        members = archive.getmembers()
        raise tarfile.ReadError(f"a damaged header after {members[-1].name if members else 'none'}")


def _uncompressed(path: Path) -> Path:
    """Return a plain tar: the path itself, or an unpacked copy in the cache."""
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path
    key = hashlib.sha256(f"{path.resolve()}-{_file_stamp(path)}".encode()).hexdigest()[:24]
    folder = cache_dir() / "archives"
    unpacked = folder / f"{key}.tar"
    if not unpacked.exists():
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f"{atomic.ASIDE_PREFIX}{os.getpid()}-{key}.tar"
        try:
            with gzip.open(path) as packed, aside.open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
            aside.replace(unpacked)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} can't be unpacked: {error}") from None
        finally:
            aside.unlink(missing_ok=True)
    return unpacked
