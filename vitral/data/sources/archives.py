"""Tars and zips, whose members are read at their offsets; gzipped files, unpacked once."""

import gzip
import hashlib
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitral.data.sources.store import Content, Store, Texts, file_stamp
from vitral.errors import DataError
from vitral.files import atomic
from vitral.files.layout import cache_dir

_FIRST_BYTES = b"\x1f\x8b"


def plain_path(path: Path, *, suffix: str) -> Path:
    """Return a file that is not compressed: the path itself, or an unpacked copy in the cache.

    Args:
        path: whatever its name says.
        suffix: of the copy's name, such as ".tar".

    Raises:
        DataError: it is damaged.
    """
    with path.open("rb") as file:
        if file.read(len(_FIRST_BYTES)) != _FIRST_BYTES:
            return path
    key = hashlib.sha256(f"{path.resolve()}-{file_stamp(path)}".encode()).hexdigest()[:24]
    folder = cache_dir() / "archives"
    unpacked = folder / f"{key}{suffix}"
    if not unpacked.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{atomic.ASIDE_PREFIX}{os.getpid()}-{key}{suffix}"
        try:
            with gzip.open(path) as packed, temporary.open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
            temporary.replace(unpacked)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} can't be unpacked: {error}") from None
        finally:
            temporary.unlink(missing_ok=True)
    return unpacked


ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
_ZIP_HEADER_BYTES = 30


class TarStore:
    """Members of a tar, read at their offsets; a compressed tar is unpacked once into the cache."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plain_path = plain_path(path, suffix=".tar")
        try:
            with tarfile.open(self.plain_path, "r:") as archive:
                members = [m for m in archive if m.isfile() or m.islnk() or m.issym()]
                places = [_place_in_tar(archive, member) for member in members]
                _check_end(archive)
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"{path} can't be read as a tar: {error}") from None
        self.names: Sequence[str] = [member.name.removeprefix("./") for member in members]
        self._links = {index: m.linkname for index, m in enumerate(members) if places[index][1] < 0}
        self._places = np.array(places, np.int64).reshape(-1, 2)
        self._stamp = file_stamp(path)

    def read(self, number: int) -> Content:
        """Return a member's bytes."""
        if number in self._links:
            raise OSError(f"a link to {self._links[number]}, which is not followed in archives")
        offset, size = (int(value) for value in self._places[number])
        with self.plain_path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def span(self, number: int) -> tuple[int, int]:
        """Return a member's start and end in `plain_path`; (0, 0) for a link elsewhere."""
        offset, size = (int(value) for value in self._places[number])
        return (offset, offset + size) if size >= 0 else (0, 0)

    def stamp(self, number: int) -> str | None:
        """Return the archive's size and time of change, and the offset of the member."""
        return f"{self._stamp}-{self._places[number][0]}"

    def blocks(self) -> np.ndarray | None:
        """Each member is read by itself."""
        return None


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
        self._stamp = file_stamp(path)

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
        """Return the archive's size and time of change, and the offset of the member."""
        return f"{self._stamp}-{self._members[number].header_offset}"

    def blocks(self) -> np.ndarray | None:
        """Each member is read by itself."""
        return None


class NestedTarStore:
    """Members of the tars within a tar, as ImageNet's is; names are INNER/MEMBER.

    Their offsets are cached, since a tar of a million files has no index.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = file_stamp(path)
        key = hashlib.sha256(f"{path.resolve()}-{self._stamp}-nested".encode()).hexdigest()[:24]
        cached = cache_dir() / "archives" / f"{key}.npz"
        found = _load_places(cached)
        if found is None:
            found = _find_nested(path)
            _save_places(cached, *found)
        self.names: Sequence[str] = found[0]
        self._places = found[1]

    def read(self, number: int) -> Content:
        """Return a member's bytes."""
        offset, size = (int(value) for value in self._places[number])
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def stamp(self, number: int) -> str | None:
        """Return the archive's size and time of change, and the offset of the member."""
        return f"{self._stamp}-{self._places[number][0]}"

    def blocks(self) -> np.ndarray | None:
        """Each member is read by itself."""
        return None


def _find_nested(path: Path) -> tuple[Texts, np.ndarray]:
    """Return names and places (N, 2) of all members of the tars in a tar."""
    names: list[str] = []
    places: list[tuple[int, int]] = []
    try:
        with tarfile.open(path, "r:") as outer:
            for inner in outer:
                if not inner.isfile() or not inner.name.endswith(".tar"):
                    continue
                part = outer.extractfile(inner)
                with tarfile.open(fileobj=part, mode="r:") as archive:
                    for member in archive:
                        if member.isfile():
                            names.append(f"{Path(inner.name).stem}/{member.name}")
                            places.append((inner.offset_data + member.offset_data, member.size))
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path} can't be read as a tar of tars: {error}") from None
    return Texts.of(names), np.array(places, np.int64).reshape(-1, 2)


def _load_places(path: Path) -> tuple[Texts, np.ndarray] | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Texts(arrays["names"], arrays["ends"]), arrays["places"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # missing or damaged: it is made again


def _save_places(path: Path, names: Texts, places: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.new_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, names=names.content, ends=names.ends, places=places)
    except OSError:
        return  # the next opening looks again


def open_archive(path: Path) -> Store:
    """Open a tar or zip.

    Raises:
        DataError: it is damaged.
    """
    return ZipStore(path) if path.suffix.lower() == ".zip" else TarStore(path)


def is_archive(path: Path) -> bool:
    """Return whether a path has the name of an archive that is supported."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def _place_in_tar(archive: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[int, int]:
    """Return the offset and size of a member's bytes; size -1 for a link to elsewhere."""
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
