"""A linear probe before fine-tuning: a quick score, and an initial head.

Source: fine-tuning that starts from a probe's head distorts the features less (Kumar et al., arXiv
2202.10054). With few images, the probe itself may be the better model.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch

from vitral.data.dataset import ImageDataset
from vitral.data.examples import Examples
from vitral.data.order import epoch_order
from vitral.evaluate.arrays import Features
from vitral.evaluate.features import extract_features
from vitral.evaluate.probe import Probe, linear_probe
from vitral.files.layout import cache_dir
from vitral.models.model import Model
from vitral.training.context import TrainContext
from vitral.transfer.pretrained import set_head

FIRST_AFTER_SECONDS = 40.0
"""Time after which a first score is reported, from the features computed by then."""
MOST_FIRST_VALIDATION = 500
"""Number of validation images computed before the training images, for that first score."""
CHUNKS, LEAST_IN_CHUNK = 8, 64
"""Chunks of the training images, after each of which the first score may be reported."""


def probe_first(model: Model, images: ImageDataset, context: TrainContext) -> float | None:
    """Fit a linear probe to the model's frozen features, and set it as the head.

    If the features take longer than 40 seconds, a first score is reported from those computed by
    then; it has no effect on the result.

    Returns:
        The accuracy on the validation images. None if there are none, if the data is multi-label,
        or if a class has no readable training image: the head then stays zero.
    """
    if "validation" not in images.splits or images.is_multi_label:
        return None
    model.to(context.device)
    train, validation = _Rows.collect(model, images, context)
    if len(np.unique(train.labels)) < len(images.classes):
        return None
    probe = _fit(train, validation, num_classes=len(images.classes))
    set_head(model, torch.from_numpy(probe.weights), torch.from_numpy(probe.bias))
    context.view.log(
        f"probe: {_describe(probe, validation)}, with frozen features (l2 {probe.l2:g}): what "
        "fine-tuning must come up to"
    )
    return probe.accuracy


@dataclass(frozen=True)
class _Rows:
    """Features (N, D) and labels (N,)."""

    features: np.ndarray
    labels: np.ndarray

    @classmethod
    def joined(cls, parts: list[Features]) -> "_Rows":
        return cls(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.labels for part in parts]),
        )

    @classmethod
    def collect(
        cls, model: Model, images: ImageDataset, context: TrainContext
    ) -> tuple["_Rows", "_Rows"]:
        """Return the training and the validation rows, in a fixed random order."""
        train, validation = (_shuffled(images.splits[split]) for split in ("train", "validation"))
        first, rest = _divided(validation, MOST_FIRST_VALIDATION)
        work = [first, *_chunks(train), *rest]
        total, done, started, is_reported = sum(map(len, work)), 0, time.perf_counter(), False
        found: list[Features] = []
        context.view.start("features", total=total)
        try:
            for number, part in enumerate(work):
                found.append(_extract(model, part, context, done=done, total=total))
                done += len(part)
                is_due = time.perf_counter() - started > FIRST_AFTER_SECONDS
                if is_due and not is_reported and 0 < number < len(work) - 1:
                    is_reported = _report_first(
                        found, num_classes=len(images.classes), context=context
                    )
        finally:
            context.view.finish()
        end = len(work) - len(rest)
        return cls.joined(found[1:end]), cls.joined([found[0], *found[end:]])


def _shuffled(examples: Examples) -> Examples:
    return examples.select(epoch_order(0, 0, len(examples), blocks=examples.blocks()))


def _divided(examples: Examples, count: int) -> tuple[Examples, list[Examples]]:
    """Return the first `count` examples, and the rest as a list of at most one part."""
    indices = np.arange(len(examples))
    rest = [examples.select(indices[count:])] if len(indices) > count else []
    return examples.select(indices[:count]), rest


def _chunks(examples: Examples) -> list[Examples]:
    count = min(CHUNKS, max(1, len(examples) // LEAST_IN_CHUNK))
    return [examples.select(part) for part in np.array_split(np.arange(len(examples)), count)]


def _extract(
    model: Model, part: Examples, context: TrainContext, *, done: int, total: int
) -> Features:
    return extract_features(
        model,
        part,
        preprocessing=model.preprocessing,
        device=context.device,
        report_progress=lambda count, _: context.view.update(done + count, total, title="features"),
        cache=cache_dir() / "features",
    )


def _report_first(found: list[Features], *, num_classes: int, context: TrainContext) -> bool:
    """Report the score of a probe on the features so far, if they include every class."""
    validation, train = _Rows.joined(found[:1]), _Rows.joined(found[1:])
    if len(np.unique(train.labels)) < num_classes:
        return False
    probe = _fit(train, validation, num_classes=num_classes)
    count = len(train.labels)
    context.view.log(f"first probe, of {count:,} training images: {_describe(probe, validation)}")
    return True


def _fit(train: _Rows, validation: _Rows, *, num_classes: int) -> Probe:
    validation_rows = (validation.features, validation.labels)
    return linear_probe(
        train.features,
        train.labels,
        *validation_rows,
        num_classes=num_classes,
        validation=validation_rows,
        join=False,
    )


def _describe(probe: Probe, validation: _Rows) -> str:
    return f"{100 * probe.accuracy:.1f} % of {len(validation.labels):,} validation images"


Rows = tuple[np.ndarray, np.ndarray]
"""Features (N, D) and labels (N,)."""


def probe_seen_classes(train: Rows, validation: Rows, test: Rows) -> tuple[int, float]:
    """Fit a probe to the training and validation rows, and score the test rows once.

    A few hundred images do not cover all classes, such as the 800 images of Sun397, which has 397
    classes. Classes without a row are never predicted; their test rows count as wrong.

    Args:
        train: fitted to choose l2.
        validation: scored to choose l2, then included in the final fit.
        test: scored.

    Returns:
        The number of correct test rows, and the chosen l2.
    """
    train_classes = np.unique(train[1])
    known_validation = _among(validation, train_classes)
    known_train = _among(train, train_classes)
    choice = linear_probe(
        *known_train,
        *known_validation,
        num_classes=len(train_classes),
        validation=known_validation,
        join=False,
    )
    everything = tuple(np.concatenate(parts) for parts in zip(train, validation, strict=True))
    classes = np.unique(everything[1])
    fitted, scored = _among((everything[0], everything[1]), classes), _among(test, classes)
    probe = linear_probe(*fitted, *scored, num_classes=len(classes), l2_grid=(choice.l2,))
    return int((probe.predictions == scored[1]).sum()), choice.l2


def _among(rows: Rows, classes: np.ndarray) -> Rows:
    """Return the rows of some classes, which are renumbered from 0."""
    features, labels = rows
    known = np.isin(labels, classes)
    return features[known], np.searchsorted(classes, labels[known])
