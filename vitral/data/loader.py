"""From examples to batches, by threads: decoding and resizing release Python's lock."""

import contextlib
import functools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vitral.data.decode import UnreadableImageError, UnsupportedImageError, decode_image
from vitral.data.images import Examples
from vitral.data.jpeg import Reduce, Scratch
from vitral.data.order import (
    StepPlan,
    cutmix_boxes,
    epoch_order,
    micro_batches,
    mixup_shares,
    plan_step,
    share_of_rank,
    uniforms,
)
from vitral.data.stores.store import Content
from vitral.data.transforms import augment, crop_reduction, num_uniforms, preprocess
from vitral.errors import DataError
from vitral.spec.preprocessing import Preprocessing
from vitral.spec.run import AugmentSettings

Prepare = Callable[[Content, np.ndarray | None], np.ndarray]
"""From an example's content and its random numbers, if any, to pixels of the model's size."""

_CHUNK = 4
_PREFETCHED_BATCHES = 4
_MAX_WORKERS = 16


Batch = dict[str, Tensor]
"""`image` (N, C, H, W) in 0..255, uint8 or, without rounding, float32; `label` (N,) int64, or
where images may have any classes (N, K) uint8 of 0 and 1; `index` (N,) int64, the example within
its split; `valid` (N,) bool, false where the image could not be read and is 0; with mixup or cutmix
`mix_share` (N,) float32, what each image keeps of itself; with cutmix `mix_box` (N, 4) int64, the
pixels top, left, bottom, right that its pair's other image fills, zeros for none; with stochastic
depth `path_numbers` (N, branches of the model) float32 in [0, 1)."""


@dataclass(frozen=True)
class StepBatches:
    """What this process does in one step."""

    plan: StepPlan
    micro_batches: list[Batch]


@dataclass(frozen=True)
class _Job:
    """A batch to be loaded."""

    indices: np.ndarray
    numbers: np.ndarray | None = None
    mix_share: np.ndarray | None = None
    mix_box: np.ndarray | None = None
    path_numbers: np.ndarray | None = None
    counts: bool = True
    """False: a process without a share of the step passes an example that does not count."""


def evaluation_batches(
    examples: Examples,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    errors: dict[int, str],
    workers: int = -1,
    indices: np.ndarray | None = None,
) -> Iterator[Batch]:
    """Give every example once, in order.

    Args:
        examples: of one split.
        preprocessing: of the model.
        batch_size: the last batch may be smaller.
        errors: gets, by index, why an image could not be read.
        workers: threads; -1: by the number of cores.
        indices: some of the examples, such as those of one process; None: all.
    """
    indices = np.arange(len(examples)) if indices is None else indices
    scratch = Scratch()
    jobs = (_Job(indices[i : i + batch_size]) for i in range(0, len(indices), batch_size))

    def prepare(content: Content, _: np.ndarray | None) -> np.ndarray:
        pixels = decode(content, channels=preprocessing.channels, scratch=scratch)
        return preprocess(pixels, preprocessing)

    return _stream(
        examples, jobs, prepare, preprocessing=preprocessing, errors=errors, workers=workers
    )


@dataclass(frozen=True)
class TrainingBatches:
    """The batches of a training run, step by step, for one of the processes."""

    examples: Examples
    preprocessing: Preprocessing
    settings: AugmentSettings
    seed: int
    batch_size: int
    micro_batch_size: int = 0
    rank: int = 0
    world_size: int = 1
    workers: int = -1
    num_paths: int = 0
    """Random numbers that each example gets for stochastic depth; 0: none."""
    scaled_decoding: bool = False
    """Whether JPEGs are decoded smaller where their crop still fills the model: sooner, and with
    other grey levels."""
    errors: dict[int, str] = field(default_factory=dict)
    """Why images could not be read, by index; grows as batches are loaded, ahead of their use."""

    def steps(self, first: int, end: int) -> Iterator[StepBatches]:
        """Give the steps from `first` up to `end`; what each holds depends on its number alone."""
        jobs = (job for step in range(first, end) for job in self._jobs(self._plan(step)))

        scratch = Scratch()

        def prepare(content: Content, numbers: np.ndarray | None) -> np.ndarray:
            assert numbers is not None
            pixels = decode(
                content,
                channels=self.preprocessing.channels,
                reduce=self._reduce_for(numbers),
                scratch=scratch,
            )
            return augment(
                pixels, numbers, settings=self.settings, preprocessing=self.preprocessing
            )

        stream = _stream(
            self.examples,
            jobs,
            prepare,
            preprocessing=self.preprocessing,
            errors=self.errors,
            workers=self.workers,
        )
        with contextlib.closing(stream):
            for step in range(first, end):
                plan = self._plan(step)
                yield StepBatches(plan, [next(stream) for _ in self._spans(plan)])

    def _reduce_for(self, numbers: np.ndarray) -> Reduce | None:
        if not self.scaled_decoding:
            return None
        return functools.partial(
            crop_reduction,
            numbers=numbers,
            settings=self.settings,
            preprocessing=self.preprocessing,
        )

    def _plan(self, step: int) -> StepPlan:
        return plan_step(step, num_examples=len(self.examples), batch_size=self.batch_size)

    def _spans(self, plan: StepPlan) -> list[tuple[int, int]]:
        """Return the positions of each micro-batch; a process without a share has an empty one."""
        start, stop = share_of_rank(plan, rank=self.rank, world_size=self.world_size)
        return list(micro_batches(start, stop, size=self.micro_batch_size)) or [(start, start)]

    def _jobs(self, plan: StepPlan) -> Iterator[_Job]:
        order = self._order_of(plan.epoch)
        for start, stop in self._spans(plan):
            # Every process must pass something through the model: an example that does not count.
            indices = order[start:stop] if stop > start else order[:1]
            count = num_uniforms(self.settings)
            numbers = uniforms(self.seed, plan.epoch, indices, count=count)
            share, box = self._mixing(plan, start, stop)
            path_numbers = self._path_numbers(plan, indices)
            yield _Job(indices, numbers, share, box, path_numbers, counts=stop > start)

    @functools.cached_property
    def _order_of(self) -> Callable[[int], np.ndarray]:
        """The order of an epoch; two are kept, since the next one begins ahead of its use."""
        blocks, count = self.examples.blocks(), len(self.examples)
        return functools.lru_cache(maxsize=2)(
            lambda epoch: epoch_order(self.seed, epoch, count, blocks=blocks)
        )

    def _path_numbers(self, plan: StepPlan, indices: np.ndarray) -> np.ndarray | None:
        if not self.num_paths:
            return None
        return uniforms(self.seed, plan.epoch, indices, count=self.num_paths, purpose="depth")

    def _mixing(
        self, plan: StepPlan, start: int, stop: int
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return what each image keeps of itself, and the boxes that its partner fills."""
        settings, epoch = self.settings, (self.seed, plan.epoch, len(self.examples))
        if not settings.mixes:
            return None, None
        count = max(stop - start, 1)
        shares, boxes = np.ones(count, np.float32), None
        if settings.mixup:
            shares[: stop - start] = mixup_shares(*epoch, alpha=settings.mixup)[start:stop]
        if settings.cutmix:
            beside = bool(settings.mixup)
            drawn = cutmix_boxes(*epoch, alpha=settings.cutmix, beside_mixup=beside)[start:stop]
            boxes = np.zeros((count, 4), np.int64)
            boxes[: stop - start] = np.rint(drawn * np.tile(self.preprocessing.size, 2))
            is_cut = drawn.any(axis=1)
            shares[: stop - start][is_cut] = kept_share(boxes, self.preprocessing.size)[
                : stop - start
            ][is_cut]
        if count % 2:  # the last of an odd number has no partner here
            shares[-1] = 1
            if boxes is not None:
                boxes[-1] = 0
        return shares, boxes


def choose_workers(workers: int) -> int:
    """Return the number of threads; -1: as many as cores, at most 16."""
    return min(_MAX_WORKERS, os.cpu_count() or 1) if workers < 0 else workers


def _stream(
    examples: Examples,
    jobs: Iterable[_Job],
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
                chunks = loading.chunks()
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
        job: _Job,
        prepare: Prepare,
        preprocessing: Preprocessing,
        errors: dict[int, str],
    ) -> None:
        self._examples, self._job, self._prepare = examples, job, prepare
        self._errors = errors
        dtype = np.float32 if preprocessing.rounding == "none" else np.uint8
        shape = (len(job.indices), *preprocessing.size, preprocessing.channels)
        self._images = np.zeros(shape, dtype)

    def chunks(self) -> list[Callable[[], None]]:
        """Return the pieces of work, each for one thread."""
        return [
            functools.partial(self._fill, start, min(start + _CHUNK, len(self._job.indices)))
            for start in range(0, len(self._job.indices), _CHUNK)
        ]

    def _fill(self, start: int, stop: int) -> None:
        for row in range(start, stop):
            index = int(self._job.indices[row])
            numbers = None if self._job.numbers is None else self._job.numbers[row]
            try:
                self._images[row] = self._prepare(self._examples.read(index), numbers)
            except (UnreadableImageError, UnsupportedImageError, DataError, OSError) as error:
                self._errors[index] = str(error)

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


def kept_share(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the share of pixels (N,) float32 outside of boxes (N, 4) in an image of `size`."""
    inside = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    share: np.ndarray = (1 - inside / (size[0] * size[1])).astype(np.float32)
    return share


def _both_of_pair(valid: np.ndarray) -> np.ndarray:
    partner = np.arange(len(valid)) ^ 1
    return valid & valid[np.minimum(partner, len(valid) - 1)]
