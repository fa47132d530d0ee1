"""Cache of features in a folder, keyed by all they depend on: weights, pixels, settings."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vitral.data.sources.listing import FileInfo
from vitral.data.workers import choose_workers
from vitral.errors import DataError
from vitral.files.atomic import new_file
from vitral.models.weights.provenance import weights_hash
from vitral.version import __version__

if TYPE_CHECKING:
    from vitral.config.preprocessing import Preprocessing
    from vitral.data.examples import Examples
    from vitral.data.sources.store import Content, Store
    from vitral.models.model import Model

_log = logging.getLogger("vitral")
_UNWRITABLE: set[Path] = set()
"""Folders for which the warning that they are not writable was already given."""


@dataclass(frozen=True)
class Kept:
    """The cached part of an extraction: all but the labels."""

    values: np.ndarray
    """(N, D) float32."""
    indices: np.ndarray
    """(N,) int64."""
    errors: dict[int, str]

    def digest(self) -> str:
        """Return a hash of everything, which reveals damage."""
        digest = hashlib.sha256(f"{self.values.shape} {_errors_text(self.errors)}".encode())
        digest.update(np.ascontiguousarray(self.values).data)
        digest.update(np.ascontiguousarray(self.indices).data)
        return digest.hexdigest()


def feature_key(
    model: Model,
    digests: Sequence[str],
    *,
    preprocessing: Preprocessing,
    precision: torch.dtype,
    device: torch.device,
    first: np.ndarray,
) -> str:
    """Return the cache key of a model's features for images.

    The batch size is not part of it: it affects rounding only.

    Args:
        model: counts with its weights and config.
        digests: of the images' contents, in order.
        preprocessing: all fields count.
        precision: of the matrix products.
        device: its kind counts.
        first: (D,), the features of the first image as they are computed now. They cover what the
            other arguments do not: changed code, other decoders, settings of torch.
    """
    facts = {
        "vitral": __version__,
        "torch": torch.__version__,
        "device": device.type,
        "precision": str(precision),
        "model": [type(model.config).__name__, asdict(model.config), weights_hash(model)],
        "preprocessing": asdict(preprocessing),
        "first": np.ascontiguousarray(first).tobytes().hex(),
        "images": list(digests),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def load_features(folder: Path, key: str) -> Kept | None:
    """Return the features cached under a key; None if there are none, or they are damaged."""
    try:
        with safe_open(_path(folder, key), framework="numpy") as file:
            facts = file.metadata()
            errors = {int(index): text for index, text in json.loads(facts["errors"]).items()}
            cached = Kept(file.get_tensor("values"), file.get_tensor("indices"), errors)
            return cached if cached.digest() == facts["digest"] else None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError):
        return None


def save_features(folder: Path, key: str, cached: Kept) -> None:
    """Write features to the cache; warn once per folder if that is not possible."""
    facts = {"errors": _errors_text(cached.errors), "digest": cached.digest()}
    tensors = {"values": np.ascontiguousarray(cached.values), "indices": cached.indices}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with new_file(_path(folder, key)) as aside:
            save_file(tensors, aside, metadata=facts)
    except (OSError, SafetensorError) as error:
        if folder not in _UNWRITABLE:
            _UNWRITABLE.add(folder)
            _log.warning("note: features can't be kept in %s, so they are not: %s", folder, error)


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.safetensors"


def _errors_text(errors: dict[int, str]) -> str:
    return json.dumps({str(index): errors[index] for index in sorted(errors)})


_CHUNK = 512


def content_digests(examples: Examples, *, workers: int = -1) -> list[str] | None:
    """Return 32 hex digits for each example, equal if the contents are.

    Files that the survey has read and that have not changed since, by size and time, are not read
    again.

    Args:
        examples: in order; of files the bytes are hashed, of arrays shape, type and pixels.
        workers: threads; -1: by the number of cores.

    Returns:
        None if an example can't be read now.
    """
    numbers, digests = examples.file_ids.tolist(), list[str]()

    def digest(number: int) -> str:
        known = _known_digest(examples.store, number, examples.file_infos)
        return known or digest_of(examples.store.read(number))

    try:
        with ThreadPoolExecutor(max(1, choose_workers(workers))) as pool:
            for start in range(0, len(numbers), _CHUNK):
                digests += pool.map(digest, numbers[start : start + _CHUNK])
    except (OSError, DataError):
        return None
    return digests


def digest_of(content: Content) -> str:
    """Return 32 hex digits of SHA-256 of a file's bytes, as the survey does, or of an array."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()[:32]
    digest = hashlib.sha256(f"{content.shape} {content.dtype} ".encode())
    digest.update(np.ascontiguousarray(content).data)
    return digest.hexdigest()[:32]


class WatchedStore:
    """A store that notices when a content differs from its digest."""

    def __init__(self, examples: Examples, digests: Sequence[str]) -> None:
        """Watch the store of `examples`, whose contents had `digests` in their order."""
        self._store, self._file_infos = examples.store, examples.file_infos
        self.names = examples.store.names
        self._digests = dict(zip(examples.file_ids.tolist(), digests, strict=True))
        self.has_changed = False
        """Whether a content differed, or could not be read."""

    def read(self, number: int) -> Content:
        """Return a file's content. Raises OSError."""
        try:
            content = self._store.read(number)
        except (OSError, DataError):
            self.has_changed = True
            raise
        known = _known_digest(self._store, number, self._file_infos)
        self.has_changed |= (known or digest_of(content)) != self._digests[number]
        return content

    def stamp(self, number: int) -> str | None:
        """Return a stamp that changes when the content does."""
        return self._store.stamp(number)

    def blocks(self) -> np.ndarray | None:
        """Return the block of each file, read together; None: each by itself."""
        return self._store.blocks()


def _known_digest(store: Store, number: int, file_infos: Sequence[FileInfo] | None) -> str:
    """Return the survey's digest of a file if it is still valid, else an empty string."""
    file_info = file_infos[number] if file_infos else FileInfo()
    # The survey hashes only the pixels of arrays, not their shape.
    is_known = (
        file_info.stamp and file_info.format != "array" and file_info.stamp == store.stamp(number)
    )
    return file_info.digest if is_known else ""
