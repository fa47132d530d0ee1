"""Atomic writes of files and folders, and manifests that detect damage."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from vitral.errors import ModelFileError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

ASIDE_PREFIX = ".aside-"
IS_WINDOWS = sys.platform == "win32"
RETRY_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0)
_LOCKED_BYTE = 2**30


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's contents atomically: a reader sees the old or the new ones."""
    # One temporary file per thread, so that no thread renames the unfinished file of another.
    aside = path.with_name(f"{ASIDE_PREFIX}{os.getpid()}-{threading.get_ident()}-{path.name}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a file's text, as `write_bytes` does."""
    # File names that are not valid text hold lone surrogates.
    write_bytes(path, text.encode(errors="surrogateescape"))


def write_json(path: Path, content: Any) -> None:
    """Replace a file's contents by indented JSON, as `write_bytes` does."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write, which is renamed to `path` once complete and synced."""
    aside = path.with_name(f"{ASIDE_PREFIX}{os.getpid()}-{path.name}")
    try:
        yield aside
        sync(aside)
        replace(aside, path)
        sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path, *, verify: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield a temporary folder to fill, which is renamed to `path` once complete and synced.

    Args:
        path: must not exist, or be a folder that may be replaced.
        verify: called with the filled folder before it is renamed; raises to prevent that.
    """
    aside = path.with_name(f"{ASIDE_PREFIX}{os.getpid()}-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        for file in sorted(aside.rglob("*")):
            sync(file)
        sync(aside)
        if verify:
            verify(aside)
        if path.exists():
            replaced = path.with_name(f"{ASIDE_PREFIX}{os.getpid()}-old-{path.name}")
            replace(path, replaced)
            replace(aside, path)
            shutil.rmtree(replaced)
        else:
            replace(aside, path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders of a killed process."""
    for leftover in folder.glob(f"{ASIDE_PREFIX}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def replace(source: Path, target: Path) -> None:
    """Rename a file over another one, or to a new name.

    Windows refuses while another program, such as a virus scanner or a reader, has one of them
    open: there it is tried again for a while.
    """
    for seconds in RETRY_SECONDS if IS_WINDOWS else ():
        try:
            source.replace(target)
            return
        except PermissionError:
            time.sleep(seconds)
    source.replace(target)


def lock(file: IO[Any], *, wait: bool) -> None:
    """Lock a file against other processes until it is closed.

    Args:
        file: open for writing.
        wait: until others have closed it.

    Raises:
        OSError: another process holds it, or the file system has no locks.
    """
    if sys.platform == "win32":
        file.seek(_LOCKED_BYTE)  # beyond all contents, which others may read
        while True:
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                return
            except OSError as error:  # LK_LOCK gives up after ten seconds
                if not wait or error.errno != errno.EDEADLK:
                    raise
    else:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def sync_folder(path: Path) -> None:
    """Make a rename inside a folder survive a loss of power, if the system supports it."""
    sync(path)


def sync(path: Path) -> None:
    """Wait until a file's contents are on disk."""
    if IS_WINDOWS and path.is_dir():
        return  # only files can be synced there, and only those open for writing
    descriptor = os.open(path, os.O_RDWR if IS_WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


MANIFEST_NAME = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Write a manifest of all files below a folder."""
    entries = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST_NAME
    }
    write_json(folder / MANIFEST_NAME, {"files": entries})


def check_manifest(folder: Path) -> None:
    """Compare a folder with its manifest.

    Raises:
        ModelFileError: a file is missing, or its size or contents differ.
    """
    try:
        listed = json.loads((folder / MANIFEST_NAME).read_text())["files"].items()
        entries = [(name, entry["bytes"], entry["sha256"]) for name, entry in listed]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{folder} has no readable {MANIFEST_NAME}: {error!r}") from None
    for name, num_bytes, digest in entries:
        file = folder / name
        if not file.is_file():
            raise ModelFileError(f"{folder} lacks {name}, which its manifest lists")
        if file.stat().st_size != num_bytes:
            raise ModelFileError(
                f"{file} has {file.stat().st_size} bytes, its manifest says {num_bytes}"
            )
        if sha256(file) != digest:
            raise ModelFileError(f"{file} is damaged: its SHA-256 is not the one in the manifest")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's contents, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
