"""One pass over all files before anything else: what each is, its hash, whether it decodes.

Each file is read and decoded once, in threads; what was found is cached by path, size and time of
change.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from PIL import Image

from vitral.data.decode import (
    MODE_BY_CHANNELS,
    UnreadableImageError,
    UnsupportedImageError,
    decode_image,
    read_header,
)
from vitral.data.sources.listing import FileInfo, Listing
from vitral.data.sources.store import Content, Store
from vitral.data.transforms import fits_channels
from vitral.errors import DataError
from vitral.files.atomic import write_text
from vitral.files.layout import cache_dir
from vitral.files.rows import read_rows
from vitral.version import __version__

# Above this many files, a pass that reads all of them is left to a check that the user asks for.
MAX_FILES_READ = 200_000
_CHUNK = 512


def survey(
    listing: Listing,
    *,
    channels: int,
    everything: bool = False,
    report_progress: Callable[[int, int], None] | None = None,
) -> list[FileInfo]:
    """Look into every file of a listing.

    Args:
        listing: what to look into.
        channels: of the model, for which the images are decoded.
        everything: also read more than MAX_FILES_READ files, whose findings are otherwise empty.
        report_progress: called with the number of files done and of all.

    Returns:
        One finding per file, in the listing's order; those that the source states, if any.
    """
    store, count = listing.store, len(listing.store.names)
    if listing.file_infos is not None:
        return list(listing.file_infos)
    if count > MAX_FILES_READ and not everything:
        return [FileInfo()] * count
    cache = _Cache(listing.source, channels=channels)

    def look(file_id: int) -> FileInfo:
        stamp = store.stamp(file_id) or ""  # before reading: a change meanwhile is noticed later
        known = cache.get(store.names[file_id], stamp)
        return known or replace(inspect_file(store, file_id, channels=channels), stamp=stamp)

    file_infos: list[FileInfo] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, count, _CHUNK):
            file_infos += pool.map(look, range(start, min(start + _CHUNK, count)))
            if report_progress:
                report_progress(len(file_infos), count)
    cache.save(store, file_infos)
    return file_infos


def inspect_file(store: Store, number: int, *, channels: int) -> FileInfo:
    """Read, hash and decode one file."""
    try:
        content = store.read(number)
    except FileNotFoundError:
        return FileInfo(problem="there is no such file", damaged=True)
    except OSError as error:
        return FileInfo(problem=f"can't be read: {error.strerror or error}", damaged=True)
    except DataError as error:
        return FileInfo(problem=str(error), damaged=True)
    return inspect_content(content, channels=channels)


def inspect_content(content: Content, *, channels: int) -> FileInfo:
    """Hash and decode one file's bytes, or hash pixels."""
    if isinstance(content, np.ndarray):
        return _look_into_array(content, channels=channels)
    digest = hashlib.sha256(content).hexdigest()[:32]
    try:
        header = read_header(content)
        pixels = decode_image(content, channels=channels)
    except UnreadableImageError as error:
        return FileInfo(digest=digest, problem=str(error), damaged=True)
    except UnsupportedImageError as error:
        return FileInfo(digest=digest, problem=str(error))
    return FileInfo(digest=digest, **asdict(header), **_values(pixels))


def _look_into_array(pixels: np.ndarray, *, channels: int) -> FileInfo:
    height, width, num_channels = pixels.shape
    if not fits_channels(num_channels, channels):
        return FileInfo(problem=f"{num_channels} channels for a model of {channels}")
    return FileInfo(
        digest=hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:32],
        format="array",
        mode=MODE_BY_CHANNELS.get(num_channels, f"{num_channels} channels"),
        height=height,
        width=width,
        **_values(pixels),
    )


def _values(pixels: np.ndarray) -> dict[str, Any]:
    visual = perceptual_hash(pixels)
    return {
        "depth": str(pixels.dtype),
        "lowest": float(pixels.min()),
        "highest": float(pixels.max()),
        "visual": visual,
        "is_flat": not visual and bool((pixels == pixels[:1, :1]).all()),
    }


class _Cache:
    """Findings of earlier passes over the same source."""

    def __init__(self, source: str, *, channels: int) -> None:
        # What one version can't read, the next one may; and it may look for more.
        fields = ",".join(field.name for field in dataclasses.fields(FileInfo))
        text = f"{source}-{channels}-{__version__}-{fields}"
        key = hashlib.sha256(text.encode()).hexdigest()[:24]
        self._path = cache_dir() / "survey" / f"{key}.jsonl"
        self._known = self._read()

    def _read(self) -> dict[tuple[str, str], FileInfo]:
        try:
            rows = [(row["name"], FileInfo(**row["finding"])) for row in read_rows(self._path)]
            return {(name, file_info.stamp): file_info for name, file_info in rows}
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # a damaged cache is made again

    def get(self, name: str, stamp: str) -> FileInfo | None:
        """Return the finding for a file that has not changed since."""
        return self._known.get((name, stamp))

    def save(self, store: Store, file_infos: list[FileInfo]) -> None:
        """Save the findings of files whose changes would be noticed, if the cache is writable."""
        lines = [
            json.dumps({"name": name, "finding": asdict(file_info)})
            for name, file_info in zip(store.names, file_infos, strict=True)
            if file_info.digest and file_info.stamp
        ]
        if not lines:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, "\n".join(lines) + "\n")
        except OSError:
            return


_SIDE = 32
_NUM_FREQUENCIES = 8
_MOST = 256
# DCT-II of 32 values; scale does not matter.
_ANGLES = np.pi / (2 * _SIDE) * np.outer(np.arange(_NUM_FREQUENCIES), 2 * np.arange(_SIDE) + 1)
_COSINES = np.cos(_ANGLES).astype(np.float32)


def perceptual_hash(pixels: np.ndarray) -> str:
    """Return the visual hash of pixels (H, W, C) of any type: 16 hex digits; "" of a flat grey.

    Each bit says whether one of the 8 x 8 lowest frequencies is above their median (pHash: Zauner,
    "Implementation and benchmarking of perceptual image hash functions", 2010, section 3.2.2).
    """
    grey = thumbnail(pixels)
    if grey.min() == grey.max():
        return ""
    frequencies = (_COSINES @ grey @ _COSINES.T).ravel()
    bits = frequencies > np.median(frequencies[1:])
    return np.packbits(bits).tobytes().hex()


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Return pixels (H, W, C) of any type as a grey image (32, 32) float32."""
    step = max(1, min(pixels.shape[:2]) // _MOST)
    grey = _grey(pixels[::step, ::step])
    return np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), np.float32)


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of two thumbnails, 1 for equal ones of any brightness and contrast."""
    first, second = (image.ravel() - image.mean() for image in (first, second))
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norm if norm else 0.0


def _grey(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
    return Image.fromarray(pixels.mean(axis=2, dtype=np.float32))
