"""A list of a folder's files with their sizes and SHA-256, against which damage is found."""

import hashlib
import json
from pathlib import Path

from vitral.errors import ModelFileError
from vitral.files.atomic import write_json

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
