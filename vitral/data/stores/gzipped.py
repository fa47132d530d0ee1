"""Files compressed by gzip, which have no index: they are unpacked once, into the cache."""

import gzip
import hashlib
import os
import shutil
import zlib
from pathlib import Path

from vitral.data.stores.folder import file_stamp
from vitral.errors import DataError
from vitral.files import atomic
from vitral.files.places import cache_dir

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
        aside = folder / f"{atomic.ASIDE_PREFIX}{os.getpid()}-{key}{suffix}"
        try:
            with gzip.open(path) as packed, aside.open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
            aside.replace(unpacked)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} can't be unpacked: {error}") from None
        finally:
            aside.unlink(missing_ok=True)
    return unpacked
