"""Batches that threads fill: decoding and resizing release Python's lock."""

import functools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vitral.data.decode import UnreadableImageError, UnsupportedImageError, decode_image
from vitral.data.examples import Examples
from vitral.data.jpeg import Reduce, Scratch
from vitral.data.sources.store import Content
from vitral.errors import DataError

Arrays = Mapping[str, np.ndarray]
Prepare = Callable[[Examples, int, Sequence[np.ndarray]], Arrays]
"""From an example of a split, and its random numbers for each view, to its entries in the batch:
pixels of the model's size, and maps that go with them."""

_MOST_IN_CHUNK = 16
_PREFETCHED_BATCHES = 4
_MAX_WORKERS = 16
Batch = dict[str, Tensor]
"""What `Needs` declares, each by its name. Always `index` (N,) int64, the example within its split,
and `valid` (N,) bool, false where the image could not be read and is 0.

`image` (N, C, H, W) in 0..255, uint8 or, without rounding, float32; of several views `image/0`, ...
`label` (N,) int64, or where images may have any classes (N, K) uint8 of 0 and 1.
`target/value` (N, values) float32, `target/mask` (N, H, W) uint8.
`flip` (N,) bool, of several views `flip/0`, ...: the images that are still to be mirrored.
`mix_share` (N,) float32, with mixup or cutmix: what each image keeps of itself; with cutmix
`mix_box` (N, 4) int64: the pixels top, left, bottom, right that its pair's other image fills, zeros
for none.
`source` (N,) int64, with several sources: which one.
And each of `Needs.draws`, such as `uniforms/drop_path`."""


@dataclass(frozen=True)
class Job:
    """A batch to be loaded."""

    examples: Examples
    indices: np.ndarray
    uniforms: tuple[np.ndarray, ...] = ()
    """Of the random changes, for each view (N, count)."""
    entries: Arrays = field(default_factory=dict)
    """What else the batch holds, unchanged, each (N, ...)."""
    counts: bool = True
    """False: a process without a share of the step passes an example that does not count."""
    errors: dict[int, str] = field(default_factory=dict)
    """Filled with the reason, by index, where an image can't be read."""


def choose_workers(workers: int) -> int:
    """Return the number of threads; -1: as many as cores, at most 16."""
    return min(_MAX_WORKERS, os.cpu_count() or 1) if workers < 0 else workers


def stream_batches(
    jobs: Iterable[Job],
    prepare: Prepare,
    *,
    shapes: Mapping[str, tuple[tuple[int, ...], type]],
    workers: int,
) -> Generator[Batch, None, None]:
    """Load batches in order, some ahead of their use; memory holds only those.

    Args:
        jobs: the batches to load.
        prepare: called in threads.
        shapes: shape and type of each array that it returns for one example, by name.
        workers: threads; 0: only this one; -1: by the number of cores.
    """
    num_workers = choose_workers(workers)
    pool = ThreadPoolExecutor(num_workers, "loader") if num_workers else None
    waiting: deque[tuple[_Loading, list[Future[None]]]] = deque()
    jobs = iter(jobs)
    try:
        while True:
            while len(waiting) < (_PREFETCHED_BATCHES if pool else 1):
                job = next(jobs, None)
                if job is None:
                    break
                loading = _Loading(job, prepare, shapes)
                chunks = loading.chunks(num_workers)
                waiting.append((loading, [pool.submit(chunk) for chunk in chunks] if pool else []))
                if pool is None:
                    for chunk in chunks:
                        chunk()
            if not waiting:
                return
            loading, futures = waiting.popleft()
            for future in futures:
                future.result()
            yield loading.batch()
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)


class _Loading:
    """A batch while threads fill it."""

    def __init__(
        self, job: Job, prepare: Prepare, shapes: Mapping[str, tuple[tuple[int, ...], type]]
    ) -> None:
        self._job, self._prepare = job, prepare
        # Every row is written, by its example or with 0.
        self._arrays: dict[str, np.ndarray] = {
            name: np.empty((len(job.indices), *shape), dtype)
            for name, (shape, dtype) in shapes.items()
        }

    def chunks(self, workers: int) -> list[Callable[[], None]]:
        """Return the pieces of work, each for one thread: two or more for each of `workers`."""
        count = len(self._job.indices)
        size = max(1, min(_MOST_IN_CHUNK, count // (2 * max(workers, 1))))
        return [
            functools.partial(self._fill, start, min(start + size, count))
            for start in range(0, count, size)
        ]

    def _fill(self, start: int, stop: int) -> None:
        job = self._job
        parts = (part[start:stop] for part in job.uniforms)
        rows = zip(job.indices[start:stop].tolist(), *parts, strict=True)
        for row, (index, *uniforms) in enumerate(rows, start=start):
            try:
                for name, values in self._prepare(job.examples, index, uniforms).items():
                    self._arrays[name][row] = values
            except (UnreadableImageError, UnsupportedImageError, DataError, OSError) as error:
                job.errors[index] = str(error)
                for array in self._arrays.values():
                    array[row] = 0

    def batch(self) -> Batch:
        """Return the filled batch."""
        job = self._job
        valid = np.array([index not in job.errors for index in job.indices.tolist()], bool)
        entries = {
            "index": np.array(job.indices, np.int64),
            "valid": valid & job.counts,
            **_with_readable_partners(job.entries, valid),
        }
        return {
            **{name: _as_tensor(name, array) for name, array in self._arrays.items()},
            **{name: torch.from_numpy(np.array(array)) for name, array in entries.items()},
        }


def join_batches(parts: Sequence[Batch]) -> Batch:
    """Return batches of the same entries as one, their rows one after the other."""
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def decode(
    content: Content,
    *,
    channels: int,
    reduce: Reduce | None = None,
    scratch: Scratch | None = None,
) -> np.ndarray:
    """Return the pixels (H, W, C) of a file's bytes; arrays are pixels already."""
    if not isinstance(content, bytes):
        return content
    return decode_image(content, channels=channels, reduce=reduce, scratch=scratch)


def _as_tensor(name: str, array: np.ndarray) -> Tensor:
    """Return images (N, H, W, C) as (N, C, H, W), without a copy; all else as it is."""
    # Transposed by NumPy: torch's views release Python's lock, and then wait for the threads.
    transposed = array.transpose(0, 3, 1, 2) if name.startswith("image") else array
    return torch.from_numpy(transposed)


def _with_readable_partners(entries: Arrays, valid: np.ndarray) -> Arrays:
    """Leave the images of a pair unmixed if one of them can't be read."""
    if "mix_share" not in entries or valid.all():
        return entries
    partner = np.minimum(np.arange(len(valid)) ^ 1, len(valid) - 1)
    both = valid & valid[partner]
    fixed = {**entries, "mix_share": np.where(both, entries["mix_share"], np.float32(1))}
    if "mix_box" in entries:
        fixed["mix_box"] = np.where(both[:, None], entries["mix_box"], 0)
    return fixed
