"""From examples to batches: which images with which random numbers, step by step."""

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
"""Positions of an epoch's order: first and beyond the last."""


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
    needs: Needs = CLASSIFICATION,
    seed: int = 0,
) -> Generator[Batch, None, None]:
    """Give every example once, in order.

    Args:
        examples: of one split.
        preprocessing: of the model.
        batch_size: the last batch may be smaller.
        errors: gets, by index, why an image could not be read.
        workers: threads; -1: by the number of cores.
        indices: some of the examples, such as those of one process; None: all.
        needs: what a batch holds beside its images, of which there is one view, unchanged.
        seed: of what is drawn, which is the same in every evaluation.
    """
    indices = np.arange(len(examples)) if indices is None else indices
    scratch = Scratch()

    def prepare(examples: Examples, index: int, _: Sequence[np.ndarray]) -> Arrays:
        content = examples.read(index)
        pixels = decode(content, channels=preprocessing.channels, scratch=scratch)
        made = {"image": preprocess(pixels, preprocessing)}
        if MASK in needs.targets:
            geometry = central_geometry(size_of(pixels), preprocessing)
            mask = examples.target(MASK, index)
            made[f"target/{MASK}"] = apply_to_mask(mask, geometry, fill=UNCOUNTED)
        return made

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
    needs: Needs = CLASSIFICATION
    """What a batch holds."""
    further: Mapping[str, Examples] = field(default_factory=dict)
    """The examples of `needs.sources`, by name."""
    scaled_decoding: bool = False
    """Whether JPEGs are decoded smaller where their crop still fills the model: sooner, and with
    other grey levels."""
    errors: dict[int, str] = field(default_factory=dict)
    """Why images could not be read, by index; grows as batches are loaded, ahead of their use."""
    further_errors: dict[str, dict[int, str]] = field(default_factory=dict)
    """Likewise of further sources, by their names."""

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
        """Return the names of a loaded batch's examples; those of further sources with its name."""
        sources = batch.get("source", torch.zeros_like(batch["index"])).tolist()
        names = []
        for source, index in zip(sources, batch["index"].tolist(), strict=True):
            prefix = f"{[*self.needs.sources][source - 1]}: " if source else ""
            names.append(prefix + self._sources[source][0].name(index))
        return names

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every example of the run's own data comes once."""
        return steps_per_epoch(len(self.examples), own_share(self.batch_size, self.needs.sources))

    def steps(self, first: int, end: int) -> Generator[StepBatches, None, None]:
        """Give the steps from `first` up to `end`; what each holds depends on its number alone."""
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
        """What the images of each view must become."""
        return {
            name: dataclasses.replace(self.preprocessing, size=view.size or self.preprocessing.size)
            for name, view in zip(self.needs.image_names, self.needs.views, strict=True)
        }

    @functools.cached_property
    def _augments(self) -> dict[str, AugmentSettings]:
        """How the images of each view are changed."""
        return {
            name: view.augment or self.settings
            for name, view in zip(self.needs.image_names, self.needs.views, strict=True)
        }

    @functools.cached_property
    def _sources(self) -> list[tuple[Examples, int, int]]:
        """Each source's examples, its part of a batch and its seed; the run's own data first."""
        sizes = [
            own_share(self.batch_size, self.needs.sources),
            *_shares(self.batch_size, self.needs.sources),
        ]
        parts = [self.examples, *(self.further[name] for name in self.needs.sources)]
        return [
            (examples, size, seed_of_source(self.seed, number))
            for number, (examples, size) in enumerate(zip(parts, sizes, strict=True))
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
            made: dict[str, np.ndarray] = {}
            for (name, settings, preprocessing), own in zip(views, numbers, strict=True):
                made[name], geometry = decode_and_augment(
                    content,
                    own,
                    settings=settings,
                    preprocessing=preprocessing,
                    scaled=self.scaled_decoding,
                    scratch=scratch,
                )
            if has_mask:
                mask = examples.target(MASK, index)
                made[f"target/{MASK}"] = apply_to_mask(mask, geometry, fill=UNCOUNTED)
            return made

        return prepare

    def _plan(self, step: int, source: int) -> StepPlan:
        """Return the positions of a step: in its epoch, or of a further source among the step's."""
        examples, size, _ = self._sources[source]
        if source:
            return StepPlan(step, 0, 0, size)
        return plan_step(step, num_examples=len(examples), batch_size=size)

    def rows_of_ranks(self, step: int) -> list[int]:
        """Return how many rows each process has in a step, those that do not count among them."""
        spans = (self._spans(step, rank) for rank in range(self.world_size))
        return [max(1, sum(stop - start for start, stop in of_rank)) for of_rank in spans]

    def order_of_rows(self, step: int) -> list[int] | None:
        """Return the step's order of the rows of all processes, which stand one after the other.

        It is source by source, as in one process. None: the rows stand in it already.
        """
        if self.world_size == 1 or not self.needs.sources:
            return None
        places: list[tuple[int, int]] = []
        for rank in range(self.world_size):
            places += [
                (source, position)
                for source, (start, stop) in enumerate(self._spans(step, rank))
                for position in range(start, stop)
            ] or [(len(self._sources), rank)]  # the row of a process without a share
        return sorted(range(len(places)), key=places.__getitem__)

    def _spans(self, step: int, rank: int) -> list[Span]:
        """Return the positions of a process in a step, of every source."""
        return [
            share_of_rank(self._plan(step, number), rank=rank, world_size=self.world_size)
            for number in range(len(self._sources))
        ]

    def _pieces(self, step: int) -> list[list[Span]]:
        """Return the micro-batches of this process: of each the positions of every source.

        The sources' rows stand one after the other, and are cut. A process without a share has one
        micro-batch of no positions.
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
            stretches = self._stretches(plan, source, start, stop)
            indices = np.concatenate([part for _, part in stretches])
            numbers = {
                name: np.concatenate(
                    [
                        uniforms(seed, epoch, part, count=num_uniforms(settings), view=view)
                        for epoch, part in stretches
                    ]
                )
                for view, (name, settings) in enumerate(self._augments.items())
            }
            drawn = [
                _draws(self.needs, seed, epoch=epoch, indices=part) for epoch, part in stretches
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

    def _stretches(
        self, plan: StepPlan, source: int, start: int, stop: int
    ) -> list[tuple[int, np.ndarray]]:
        """Return the examples at some positions of a step, each part with its epoch.

        The run's own data ends a step with each epoch. A further source is gone through again and
        again, as many examples a step as its share says.
        """
        if stop <= start:
            # Every process must pass something through the model: an example that does not count.
            return [(plan.epoch, self._order_of(source, plan.epoch)[:1])]
        if not source:
            return [(plan.epoch, self._order_of(0, plan.epoch)[start:stop])]
        examples, size, _ = self._sources[source]
        place, end = plan.step * size + start, plan.step * size + stop
        stretches = []
        while place < end:
            epoch, within = divmod(place, len(examples))
            part = self._order_of(source, epoch)[within : within + end - place]
            stretches.append((epoch, part))
            place += len(part)
        return stretches

    @functools.cached_property
    def _errors_of(self) -> list[dict[int, str]]:
        """The errors of each source, the run's own data first."""
        return [self.errors, *(self.further_errors.setdefault(n, {}) for n in self.needs.sources)]

    @functools.cached_property
    def _order_of(self) -> Callable[[int, int], np.ndarray]:
        """The order of a source's epoch; two are kept of each, since the next begins ahead."""

        def order(source: int, epoch: int) -> np.ndarray:
            examples, _, seed = self._sources[source]
            return epoch_order(seed, epoch, len(examples), blocks=examples.blocks())

        return functools.lru_cache(maxsize=2 * len(self._sources))(order)

    def _flips(self, numbers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name.replace("image", "flip"): flips(of_view)
            for name, of_view in numbers.items()
            if self._augments[name].flip
        }

    def _mixing(self, plan: StepPlan, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return what each image keeps of itself, and the boxes that its partner fills."""
        settings, epoch = self.settings, (self.seed, plan.epoch, len(self.examples))
        if not settings.mixes:
            return {}
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
        return {"mix_share": shares} | ({} if boxes is None else {"mix_box": boxes})


def own_share(batch_size: int, sources: Mapping[str, float]) -> int:
    """Return how many examples of a batch are of the run's own data, one at least."""
    return max(1, batch_size - sum(_shares(batch_size, sources)))


def _shares(batch_size: int, sources: Mapping[str, float]) -> list[int]:
    """Return how many examples of a batch each further source gives, one at least."""
    return [max(1, round(share * batch_size)) for share in sources.values()]


def kept_share(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the share of pixels (N,) float32 outside of boxes (N, 4) in an image of `size`."""
    inside = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    share: np.ndarray = (1 - inside / (size[0] * size[1])).astype(np.float32)
    return share


def _occupied(piece: Sequence[Span]) -> list[int]:
    """Return the sources that a micro-batch has examples of; the first where it has none."""
    return [number for number, (start, stop) in enumerate(piece) if stop > start] or [0]


def _facts(examples: Examples, indices: np.ndarray, needs: Needs) -> dict[str, np.ndarray]:
    """Return what is known of examples without reading their images."""
    facts = {"label": examples.labels[indices]} if needs.label else {}
    if VALUE in needs.targets:
        values = [examples.target(VALUE, index) for index in indices.tolist()]
        facts[f"target/{VALUE}"] = np.stack(values)
    return facts


def _draws(
    needs: Needs, seed: int, *, epoch: int, indices: np.ndarray, prefix: str = ""
) -> dict[str, np.ndarray]:
    """Return what is drawn for examples, by its name in the batch."""
    drawn = {}
    for name, draw in needs.draws.items():
        purpose = prefix + name.removeprefix("uniforms/")
        views = len(needs.views) if draw.per_view else 1
        made = [
            draw.make(uniforms(seed, epoch, indices, count=draw.count, purpose=purpose, view=view))
            for view in range(views)
        ]
        for numbers in made:
            _check_drawn(name, numbers, len(indices))
        drawn[name] = np.stack(made, axis=1) if draw.per_view else made[0]
    return drawn


def _check_drawn(name: str, numbers: Any, count: int) -> None:
    """Refuse what a `Draw` made unless it is an array of numbers with a row for each example."""
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
    """Return of what threads prepare the shape and type for one example, by name."""
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        name: ((*how.size, how.channels), np.float32 if how.rounding == "none" else np.uint8)
        for name, how in views.items()
    }
    if MASK in needs.targets:
        shapes[f"target/{MASK}"] = (next(iter(views.values())).size, np.uint8)
    return shapes
