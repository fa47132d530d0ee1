"""Files and folders that are there whole or not at all, and manifests that find damage."""

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vitral.errors import ModelFileError

ASIDE_PREFIX = ".aside-"


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's contents, so that a reader sees the old or the new ones."""
    # Of two threads that write the same file, one must not rename what the other has begun.
    aside = path.with_name(f"{ASIDE_PREFIX}{os.getpid()}-{threading.get_ident()}-{path.name}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a file's text, as `write_bytes` does."""
    # A file name that is not valid text holds lone surrogates.
    write_bytes(path, text.encode(errors="surrogateescape"))


def write_json(path: Path, content: Any) -> None:
    """Replace a file by readable JSON, as `write_bytes` does."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a path to write that gets its name only when it is whole and synced."""
    aside = path.with_name(f"{ASIDE_PREFIX}{os.getpid()}-{path.name}")
    try:
        yield aside
        sync(aside)
        aside.replace(path)
        sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path, *, verify: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Give a folder to fill that appears under its name only when it is whole and synced.

    Args:
        path: must not exist, or be a folder that may be replaced.
        verify: called with the filled folder before it gets its name; raises to prevent that.
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
            path.rename(replaced)
            aside.rename(path)
            shutil.rmtree(replaced)
        else:
            aside.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed had begun to write aside."""
    for leftover in folder.glob(f"{ASIDE_PREFIX}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make a rename inside a folder survive a loss of power, where the system can."""
    if os.name == "posix":
        sync(path)


def sync(path: Path) -> None:
    """Wait until a file's contents are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


MANIFEST_NAME = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Write the manifest of all files below a folder."""
    entries = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST_NAME
    }
    write_json(folder / MANIFEST_NAME, {"files": entries})


def check_manifest(folder: Path) -> None:
    """Compare a folder with its manifest.

    Raises:
        ModelFileError: a file is missing, has another size, or other contents.
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
