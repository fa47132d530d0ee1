"""Batches while threads fill them: decoding and resizing release Python's lock."""

import functools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vitral.data.decode import UnreadableImageError, UnsupportedImageError, decode_image
from vitral.data.images import Examples
from vitral.data.jpeg import Reduce, Scratch
from vitral.data.stores.store import Content
from vitral.errors import DataError
from vitral.spec.preprocessing import Preprocessing

Prepare = Callable[[Content, np.ndarray | None], np.ndarray]
"""From an example's content and its random numbers, if any, to pixels of the model's size."""

_MOST_IN_CHUNK = 16
_PREFETCHED_BATCHES = 4
_MAX_WORKERS = 16


Batch = dict[str, Tensor]
"""`image` (N, C, H, W) in 0..255, uint8 or, without rounding, float32; `label` (N,) int64, or
where images may have any classes (N, K) uint8 of 0 and 1; `index` (N,) int64, the example within
its split; `valid` (N,) bool, false where the image could not be read and is 0; where images are
mirrored `flip` (N,) bool, those that are still to be; with mixup or cutmix `mix_share` (N,)
float32, what each image keeps of itself; with cutmix `mix_box` (N, 4) int64, the pixels top, left,
bottom, right that its pair's other image fills, zeros for none; with stochastic depth
`path_numbers` (N, branches of the model) float32 in [0, 1)."""


@dataclass(frozen=True)
class Job:
    """A batch to be loaded."""

    indices: np.ndarray
    numbers: np.ndarray | None = None
    mix_share: np.ndarray | None = None
    mix_box: np.ndarray | None = None
    path_numbers: np.ndarray | None = None
    flips: np.ndarray | None = None
    """Which images (N,) are mirrored, on their way into the model."""
    counts: bool = True
    """False: a process without a share of the step passes an example that does not count."""


def choose_workers(workers: int) -> int:
    """Return the number of threads; -1: as many as cores, at most 16."""
    return min(_MAX_WORKERS, os.cpu_count() or 1) if workers < 0 else workers


def stream_batches(
    examples: Examples,
    jobs: Iterable[Job],
    prepare: Prepare,
    *,
    preprocessing: Preprocessing,
    errors: dict[int, str],
    workers: int,
) -> Generator[Batch, None, None]:
    """Load batches in order, some ahead of their use; memory holds only those."""
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
                loading = _Loading(examples, job, prepare, preprocessing, errors)
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
        self,
        examples: Examples,
        job: Job,
        prepare: Prepare,
        preprocessing: Preprocessing,
        errors: dict[int, str],
    ) -> None:
        self._examples, self._job, self._prepare = examples, job, prepare
        self._errors = errors
        dtype = np.float32 if preprocessing.rounding == "none" else np.uint8
        shape = (len(job.indices), *preprocessing.size, preprocessing.channels)
        self._images = np.empty(shape, dtype)  # every row is written, by its image or with 0

    def chunks(self, workers: int) -> list[Callable[[], None]]:
        """Return the pieces of work, each for one thread: two or more for each of `workers`."""
        count = len(self._job.indices)
        size = max(1, min(_MOST_IN_CHUNK, count // (2 * max(workers, 1))))
        return [
            functools.partial(self._fill, start, min(start + size, count))
            for start in range(0, count, size)
        ]

    def _fill(self, start: int, stop: int) -> None:
        drawn = self._job.numbers
        for row, index in enumerate(self._job.indices[start:stop].tolist(), start=start):
            numbers = None if drawn is None else drawn[row]
            try:
                self._images[row] = self._prepare(self._examples.read(index), numbers)
            except (UnreadableImageError, UnsupportedImageError, DataError, OSError) as error:
                self._errors[index] = str(error)
                self._images[row] = 0

    def batch(self) -> Batch:
        """Return the filled batch."""
        indices = self._job.indices
        valid = np.array([index not in self._errors for index in indices.tolist()], bool)
        mix_share, mix_box = self._job.mix_share, self._job.mix_box
        if mix_share is not None and not valid.all():
            both = _both_of_pair(valid)
            mix_share = np.where(both, mix_share, np.float32(1))
            mix_box = None if mix_box is None else np.where(both[:, None], mix_box, 0)
        batch = {
            "image": torch.from_numpy(self._images).permute(0, 3, 1, 2),
            "label": torch.from_numpy(self._examples.labels[indices]),
            "index": torch.from_numpy(np.array(indices, np.int64)),
            "valid": torch.from_numpy(valid & self._job.counts),
        }
        if mix_share is not None:
            batch["mix_share"] = torch.from_numpy(np.array(mix_share))
        if mix_box is not None:
            batch["mix_box"] = torch.from_numpy(np.array(mix_box))
        if self._job.flips is not None:
            batch["flip"] = torch.from_numpy(self._job.flips)
        if self._job.path_numbers is not None:
            batch["path_numbers"] = torch.from_numpy(self._job.path_numbers).float()
        return batch


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


def _both_of_pair(valid: np.ndarray) -> np.ndarray:
    partner = np.arange(len(valid)) ^ 1
    return valid & valid[np.minimum(partner, len(valid) - 1)]
