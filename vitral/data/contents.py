"""By which contents examples are known again, whatever they are called and wherever they lie."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vitral.data.finding import Finding
from vitral.data.images import Examples
from vitral.data.loading import choose_workers
from vitral.data.stores.store import Content, Store
from vitral.errors import DataError

_CHUNK = 512


def content_digests(examples: Examples, *, workers: int = -1) -> list[str] | None:
    """Return 32 hex digits for each example, equal where the content is.

    Files that the survey has read and that have not changed since, by size and time, are not read
    again.

    Args:
        examples: in order; of files their bytes count, of arrays shape, type and pixels.
        workers: threads; -1: by the number of cores.

    Returns:
        None where an example can't be read now.
    """
    numbers, digests = examples.numbers.tolist(), list[str]()

    def digest(number: int) -> str:
        known = _known_digest(examples.store, number, examples.findings)
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
    whole = hashlib.sha256(f"{content.shape} {content.dtype} ".encode())
    whole.update(np.ascontiguousarray(content).data)
    return whole.hexdigest()[:32]


class WatchedStore:
    """A store that notices when what is read is not what had been digested."""

    def __init__(self, examples: Examples, digests: Sequence[str]) -> None:
        """Watch the store of `examples`, whose contents had `digests` in their order."""
        self._store, self._findings = examples.store, examples.findings
        self.names = examples.store.names
        self._digests = dict(zip(examples.numbers.tolist(), digests, strict=True))
        self.has_changed = False
        """Whether a content was another one, or could not be read."""

    def read(self, number: int) -> Content:
        """Return a file's content. Raises OSError."""
        try:
            content = self._store.read(number)
        except (OSError, DataError):
            self.has_changed = True
            raise
        known = _known_digest(self._store, number, self._findings)
        self.has_changed |= (known or digest_of(content)) != self._digests[number]
        return content

    def stamp(self, number: int) -> str | None:
        """Return what changes when the content does."""
        return self._store.stamp(number)

    def blocks(self) -> np.ndarray | None:
        """Return which files are read together; None: each by itself."""
        return self._store.blocks()


def _known_digest(store: Store, number: int, findings: Sequence[Finding] | None) -> str:
    """Return the digest that the survey found of a file, if it stands; else nothing."""
    finding = findings[number] if findings else Finding()
    # Of arrays the survey hashes the pixels alone, whatever their shape.
    is_known = finding.stamp and finding.format != "array" and finding.stamp == store.stamp(number)
    return finding.digest if is_known else ""
