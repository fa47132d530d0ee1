"""Batches of examples, step by step: which images come with which random numbers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vitral.data.geometry import apply_to_mask, central_geometry, flips, size_of
from vitral.data.jpeg import Scratch
from vitral.data.needs import CLASSIFICATION, MASK, UNCOUNTED, VALUE, Needs
from vitral.data.order import (
    StepPlan,
    cutmix_boxes,
    epoch_order,
    micro_batches,
    mixup_shares,
    plan_step,
    seed_of_source,
    share_of_rank,
    steps_per_epoch,
    uniforms,
)
from vitral.data.transforms import decode_and_augment, moves_pixels, num_uniforms, preprocess
from vitral.data.workers import Arrays, Batch, Job, Prepare, decode, join_batches, stream_batches
from vitral.errors import RequestError

if TYPE_CHECKING:
    from vitral.config.preprocessing import Preprocessing
    from vitral.config.run import AugmentSettings
    from vitral.data.examples import Examples
    from vitral.data.sources.store import Content

Span = tuple[int, int]
"""Positions in an epoch's order: first, and one past the last."""


@dataclass(frozen=True)
class StepBatches:
    """The micro-batches of this process in one step."""

    plan: StepPlan
    micro_batches: list[Batch]
    num_valid: int
    """Valid examples of this process."""


def evaluation_batches(
    examples: Examples,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    errors: dict[int, str],
    workers: int = -1,
    indices: np.ndarray | None = None,
    needs: Needs = CLASSIFICATION,
    seed: int = 0,
) -> Generator[Batch, None, None]:
    """Yield every example once, in order.

    Args:
        examples: of one split.
        preprocessing: of the model.
        batch_size: the last batch may be smaller.
        errors: filled with the reason, by index, where an image can't be read.
        workers: threads; -1: by the number of cores.
        indices: some of the examples, such as those of one process; None: all.
        needs: what a batch holds besides its images; there is one view, without augmentation.
        seed: of the draws, which are the same in every evaluation.
    """
    indices = np.arange(len(examples)) if indices is None else indices
    scratch = Scratch()

    def prepare(examples: Examples, index: int, _: Sequence[np.ndarray]) -> Arrays:
        content = examples.read(index)
        pixels = decode(content, channels=preprocessing.channels, scratch=scratch)
        arrays = {"image": preprocess(pixels, preprocessing)}
        if MASK in needs.targets:
            geometry = central_geometry(size_of(pixels), preprocessing)
            mask = examples.target(MASK, index)
            arrays[f"target/{MASK}"] = apply_to_mask(mask, geometry, fill=UNCOUNTED)
        return arrays

    jobs = (
        Job(
            examples,
            part,
            entries=_facts(examples, part, needs)
            | _draws(needs, seed, epoch=0, indices=part, prefix="evaluation/"),
            errors=errors,
        )
        for part in (indices[i : i + batch_size] for i in range(0, len(indices), batch_size))
    )
    shapes = _shapes({"image": preprocessing}, needs)
    return stream_batches(jobs, prepare, shapes=shapes, workers=workers)


@dataclass(frozen=True)
class TrainingBatches:
    """The batches of a training run, step by step, for one process."""

    examples: Examples
    preprocessing: Preprocessing
    settings: AugmentSettings
    seed: int
    batch_size: int
    micro_batch_size: int = 0
    rank: int = 0
    world_size: int = 1
    workers: int = -1
    needs: Needs = CLASSIFICATION
    """What a batch holds."""
    extra: Mapping[str, Examples] = field(default_factory=dict)
    """The examples of `needs.sources`, by name."""
    scaled_decoding: bool = False
    """Whether JPEGs are decoded smaller where their crop still fills the model's input: faster, but
    with other grey levels."""
    errors: dict[int, str] = field(default_factory=dict)
    """Why images could not be read, by index; grows as batches are loaded, ahead of their use."""
    extra_errors: dict[str, dict[int, str]] = field(default_factory=dict)
    """The same for further sources, by name."""

    def __post_init__(self) -> None:
        if self.settings.mixes and (self.needs.sources or len(self.needs.views) > 1):
            what = "several sources" if self.needs.sources else "several views of an image"
            raise RequestError(
                f"augment.mixup={self.settings.mixup} and augment.cutmix={self.settings.cutmix} "
                f"mix pairs of images of one kind, the objective asks for {what}: set both to 0"
            )
        for settings in self._augments.values():
            if MASK in self.needs.targets and moves_pixels(settings):
                raise RequestError(
                    f"augment.randaugment={settings.randaugment} moves pixels, which masks would "
                    "not follow: set it to 0"
                )

    def names_of(self, batch: Batch) -> list[str]:
        """Return the names of a batch's examples, prefixed with the name of a further source."""
        sources = batch.get("source", torch.zeros_like(batch["index"])).tolist()
        names = []
        for source, index in zip(sources, batch["index"].tolist(), strict=True):
            prefix = f"{[*self.needs.sources][source - 1]}: " if source else ""
            names.append(prefix + self._sources[source][0].name(index))
        return names

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which each example of the run's own data is used once."""
        return steps_per_epoch(len(self.examples), main_share(self.batch_size, self.needs.sources))

    def steps(self, first: int, end: int) -> Generator[StepBatches, None, None]:
        """Yield the steps from `first` up to `end`; each depends on its number alone."""
        jobs = (
            job
            for step in range(first, end)
            for piece in self._pieces(step)
            for job in self._jobs(step, piece)
        )
        stream = stream_batches(
            jobs, self._prepare(), shapes=_shapes(self._views, self.needs), workers=self.workers
        )
        with contextlib.closing(stream):
            for step in range(first, end):
                loaded = [
                    join_batches([next(stream) for _ in _occupied(piece)])
                    for piece in self._pieces(step)
                ]
                num_valid = sum(int(batch["valid"].sum()) for batch in loaded)
                yield StepBatches(self._plan(step, 0), loaded, num_valid)

    @functools.cached_property
    def _views(self) -> dict[str, Preprocessing]:
        """The preprocessing of each view's images."""
        return {
            name: dataclasses.replace(self.preprocessing, size=view.size or self.preprocessing.size)
            for name, view in zip(self.needs.image_names, self.needs.views, strict=True)
        }

    @functools.cached_property
    def _augments(self) -> dict[str, AugmentSettings]:
        """The augmentation settings of each view."""
        return {
            name: view.augment or self.settings
            for name, view in zip(self.needs.image_names, self.needs.views, strict=True)
        }

    @functools.cached_property
    def _sources(self) -> list[tuple[Examples, int, int]]:
        """Each source's examples, number in a batch, and seed; the run's own data first."""
        sizes = [
            main_share(self.batch_size, self.needs.sources),
            *_shares(self.batch_size, self.needs.sources),
        ]
        parts = [self.examples, *(self.extra[name] for name in self.needs.sources)]
        return [
            (examples, size, seed_of_source(self.seed, source))
            for source, (examples, size) in enumerate(zip(parts, sizes, strict=True))
        ]

    def _prepare(self) -> Prepare:
        scratch = Scratch()
        views = [
            (name, self._augments[name], preprocessing)
            for name, preprocessing in self._views.items()
        ]
        has_mask = MASK in self.needs.targets

        def prepare(examples: Examples, index: int, numbers: Sequence[np.ndarray]) -> Arrays:
            content: Content = examples.read(index)
            if len(views) > 1:  # decoded once for all views
                content = decode(content, channels=self.preprocessing.channels)
            arrays: dict[str, np.ndarray] = {}
            for (name, settings, preprocessing), row in zip(views, numbers, strict=True):
                arrays[name], geometry = decode_and_augment(
                    content,
                    row,
                    settings=settings,
                    preprocessing=preprocessing,
                    scaled=self.scaled_decoding,
                    scratch=scratch,
                )
            if has_mask:
                mask = examples.target(MASK, index)
                arrays[f"target/{MASK}"] = apply_to_mask(mask, geometry, fill=UNCOUNTED)
            return arrays

        return prepare

    def _plan(self, step: int, source: int) -> StepPlan:
        """Return the positions of a step: in its epoch, or for a further source in the step."""
        examples, size, _ = self._sources[source]
        if source:
            return StepPlan(step, 0, 0, size)
        return plan_step(step, num_examples=len(examples), batch_size=size)

    def rows_of_ranks(self, step: int) -> list[int]:
        """Return the number of rows of each process in a step, including rows that do not count."""
        spans = (self._spans(step, rank) for rank in range(self.world_size))
        return [max(1, sum(stop - start for start, stop in rank_spans)) for rank_spans in spans]

    def order_of_rows(self, step: int) -> list[int] | None:
        """Return the order that sorts the concatenated rows of all processes by source.

        That is the order of a single process. None: the rows are in it already.
        """
        if self.world_size == 1 or not self.needs.sources:
            return None
        keys: list[tuple[int, int]] = []
        for rank in range(self.world_size):
            keys += [
                (source, position)
                for source, (start, stop) in enumerate(self._spans(step, rank))
                for position in range(start, stop)
            ] or [(len(self._sources), rank)]  # the row of a process without a share
        return sorted(range(len(keys)), key=keys.__getitem__)

    def _spans(self, step: int, rank: int) -> list[Span]:
        """Return the positions of a process in a step, for each source."""
        return [
            share_of_rank(self._plan(step, source), rank=rank, world_size=self.world_size)
            for source in range(len(self._sources))
        ]

    def _pieces(self, step: int) -> list[list[Span]]:
        """Return the micro-batches of this process, each as the positions of every source.

        The sources' rows are concatenated, then cut. A process without a share has one micro-batch
        of no positions.
        """
        spans = self._spans(step, self.rank)
        total = sum(stop - start for start, stop in spans)
        pieces = []
        for first, last in micro_batches(0, total, size=self.micro_batch_size):
            piece, before = [], 0
            for start, stop in spans:
                inside = [min(max(end - before, 0), stop - start) for end in (first, last)]
                piece.append((start + inside[0], start + inside[1]))
                before += stop - start
            pieces.append(piece)
        return pieces or [spans]

    def _jobs(self, step: int, piece: Sequence[Span]) -> Iterator[Job]:
        for source in _occupied(piece):
            plan, (start, stop) = self._plan(step, source), piece[source]
            examples, _, seed = self._sources[source]
            segments = self._segments(plan, source, start, stop)
            indices = np.concatenate([part for _, part in segments])
            numbers = {
                name: np.concatenate(
                    [
                        uniforms(seed, epoch, part, count=num_uniforms(settings), view=view)
                        for epoch, part in segments
                    ]
                )
                for view, (name, settings) in enumerate(self._augments.items())
            }
            drawn = [
                _draws(self.needs, seed, epoch=epoch, indices=part) for epoch, part in segments
            ]
            yield Job(
                examples,
                indices,
                tuple(numbers.values()),
                entries=_facts(examples, indices, self.needs)
                | ({"source": np.full(len(indices), source)} if self.needs.sources else {})
                | self._flips(numbers)
                | self._mixing(plan, start, stop)
                | {name: np.concatenate([part[name] for part in drawn]) for name in drawn[0]},
                counts=stop > start,
                errors=self._errors_of[source],
            )

    def _segments(
        self, plan: StepPlan, source: int, start: int, stop: int
    ) -> list[tuple[int, np.ndarray]]:
        """Return the examples at some positions of a step, in parts with the epoch of each.

        For the run's own data, a step ends with the epoch. A further source is repeated endlessly,
        with the number of examples per step that its share gives.
        """
        if stop <= start:
            # Every process must pass something through the model: an example that does not count.
            return [(plan.epoch, self._order_of(source, plan.epoch)[:1])]
        if not source:
            return [(plan.epoch, self._order_of(0, plan.epoch)[start:stop])]
        examples, size, _ = self._sources[source]
        position, end = plan.step * size + start, plan.step * size + stop
        segments = []
        while position < end:
            epoch, offset = divmod(position, len(examples))
            part = self._order_of(source, epoch)[offset : offset + end - position]
            segments.append((epoch, part))
            position += len(part)
        return segments

    @functools.cached_property
    def _errors_of(self) -> list[dict[int, str]]:
        """The errors of each source, the run's own data first."""
        return [self.errors, *(self.extra_errors.setdefault(n, {}) for n in self.needs.sources)]

    @functools.cached_property
    def _order_of(self) -> Callable[[int, int], np.ndarray]:
        """The order of a source's epoch; two are cached of each, since the next begins ahead."""

        def order(source: int, epoch: int) -> np.ndarray:
            examples, _, seed = self._sources[source]
            return epoch_order(seed, epoch, len(examples), blocks=examples.blocks())

        return functools.lru_cache(maxsize=2 * len(self._sources))(order)

    def _flips(self, numbers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name.replace("image", "flip"): flips(view_numbers)
            for name, view_numbers in numbers.items()
            if self._augments[name].flip
        }

    def _mixing(self, plan: StepPlan, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the share each image keeps of itself, and the boxes that its partner fills."""
        settings, epoch_key = self.settings, (self.seed, plan.epoch, len(self.examples))
        if not settings.mixes:
            return {}
        count = max(stop - start, 1)
        shares, boxes = np.ones(count, np.float32), None
        if settings.mixup:
            shares[: stop - start] = mixup_shares(*epoch_key, alpha=settings.mixup)[start:stop]
        if settings.cutmix:
            has_mixup = bool(settings.mixup)
            drawn = cutmix_boxes(*epoch_key, alpha=settings.cutmix, with_mixup=has_mixup)[
                start:stop
            ]
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
        return {"mix_share": shares} | ({} if boxes is None else {"mix_box": boxes})


def main_share(batch_size: int, sources: Mapping[str, float]) -> int:
    """Return how many examples of a batch are of the run's own data, at least one."""
    return max(1, batch_size - sum(_shares(batch_size, sources)))


def _shares(batch_size: int, sources: Mapping[str, float]) -> list[int]:
    """Return how many examples of a batch each further source gives, at least one."""
    return [max(1, round(share * batch_size)) for share in sources.values()]


def kept_share(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the share of pixels (N,) float32 outside of boxes (N, 4) in an image of `size`."""
    inside = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    share: np.ndarray = (1 - inside / (size[0] * size[1])).astype(np.float32)
    return share


def _occupied(piece: Sequence[Span]) -> list[int]:
    """Return the sources of a micro-batch's examples; the first source if it has none."""
    return [source for source, (start, stop) in enumerate(piece) if stop > start] or [0]


def _facts(examples: Examples, indices: np.ndarray, needs: Needs) -> dict[str, np.ndarray]:
    """Return the entries of examples that need no image: labels and values."""
    facts = {"label": examples.labels[indices]} if needs.label else {}
    if VALUE in needs.targets:
        values = [examples.target(VALUE, index) for index in indices.tolist()]
        facts[f"target/{VALUE}"] = np.stack(values)
    return facts


def _draws(
    needs: Needs, seed: int, *, epoch: int, indices: np.ndarray, prefix: str = ""
) -> dict[str, np.ndarray]:
    """Return the random draws of examples, by their names in the batch."""
    drawn = {}
    for name, draw in needs.draws.items():
        purpose = prefix + name.removeprefix("uniforms/")
        views = len(needs.views) if draw.per_view else 1
        arrays = [
            draw.make(uniforms(seed, epoch, indices, count=draw.count, purpose=purpose, view=view))
            for view in range(views)
        ]
        for numbers in arrays:
            _check_drawn(name, numbers, len(indices))
        drawn[name] = np.stack(arrays, axis=1) if draw.per_view else arrays[0]
    return drawn


def _check_drawn(name: str, numbers: Any, count: int) -> None:
    """Raise RequestError unless a draw is an array of numbers with a row for each example."""
    if not isinstance(numbers, np.ndarray) or numbers.dtype.kind not in "biuf":
        raise RequestError(
            f"the draw {name!r} made {type(numbers).__name__}, not an array of numbers"
        )
    if numbers.shape[:1] != (count,):
        raise RequestError(
            f"the draw {name!r} made {numbers.shape} for {count} examples: the first axis must be "
            "the examples"
        )


def _shapes(
    views: Mapping[str, Preprocessing], needs: Needs
) -> dict[str, tuple[tuple[int, ...], type]]:
    """Return the shape for one example and the type of each array that threads prepare."""
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        name: (
            (*preprocessing.size, preprocessing.channels),
            np.float32 if preprocessing.rounding == "none" else np.uint8,
        )
        for name, preprocessing in views.items()
    }
    if MASK in needs.targets:
        shapes[f"target/{MASK}"] = (next(iter(views.values())).size, np.uint8)
    return shapes
