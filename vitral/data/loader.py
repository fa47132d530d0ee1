"""From examples to batches: which images with which random numbers, step by step."""

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

import numpy as np

from vitral.data.geometry import flips
from vitral.data.images import Examples
from vitral.data.jpeg import Scratch
from vitral.data.loading import Batch, Job, decode, stream_batches
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
from vitral.data.transforms import decode_and_augment, num_uniforms, preprocess
from vitral.spec.preprocessing import Preprocessing
from vitral.spec.run import AugmentSettings


@dataclass(frozen=True)
class StepBatches:
    """What this process does in one step."""

    plan: StepPlan
    micro_batches: list[Batch]
    num_valid: int
    """Examples of this process that count."""


def evaluation_batches(
    examples: Examples,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    errors: dict[int, str],
    workers: int = -1,
    indices: np.ndarray | None = None,
) -> Generator[Batch, None, None]:
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
    jobs = (Job(indices[i : i + batch_size]) for i in range(0, len(indices), batch_size))

    def prepare(content: Content, _: np.ndarray | None) -> np.ndarray:
        pixels = decode(content, channels=preprocessing.channels, scratch=scratch)
        return preprocess(pixels, preprocessing)

    return stream_batches(
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

    def steps(self, first: int, end: int) -> Generator[StepBatches, None, None]:
        """Give the steps from `first` up to `end`; what each holds depends on its number alone."""
        jobs = (job for step in range(first, end) for job in self._jobs(self._plan(step)))

        scratch = Scratch()

        def prepare(content: Content, numbers: np.ndarray | None) -> np.ndarray:
            assert numbers is not None
            pixels, _ = decode_and_augment(
                content,
                numbers,
                settings=self.settings,
                preprocessing=self.preprocessing,
                scaled=self.scaled_decoding,
                scratch=scratch,
            )
            return pixels

        stream = stream_batches(
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
                loaded = [next(stream) for _ in self._spans(plan)]
                num_valid = sum(int(batch["valid"].sum()) for batch in loaded)
                yield StepBatches(plan, loaded, num_valid)

    def _plan(self, step: int) -> StepPlan:
        return plan_step(step, num_examples=len(self.examples), batch_size=self.batch_size)

    def _spans(self, plan: StepPlan) -> list[tuple[int, int]]:
        """Return the positions of each micro-batch; a process without a share has an empty one."""
        start, stop = share_of_rank(plan, rank=self.rank, world_size=self.world_size)
        return list(micro_batches(start, stop, size=self.micro_batch_size)) or [(start, start)]

    def _jobs(self, plan: StepPlan) -> Iterator[Job]:
        order = self._order_of(plan.epoch)
        for start, stop in self._spans(plan):
            # Every process must pass something through the model: an example that does not count.
            indices = order[start:stop] if stop > start else order[:1]
            count = num_uniforms(self.settings)
            numbers = uniforms(self.seed, plan.epoch, indices, count=count)
            share, box = self._mixing(plan, start, stop)
            yield Job(
                indices,
                numbers,
                share,
                box,
                self._path_numbers(plan, indices),
                flips=flips(numbers) if self.settings.flip else None,
                counts=stop > start,
            )

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


def kept_share(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the share of pixels (N,) float32 outside of boxes (N, 4) in an image of `size`."""
    inside = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    share: np.ndarray = (1 - inside / (size[0] * size[1])).astype(np.float32)
    return share
