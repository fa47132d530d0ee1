"""A linear probe before fine-tuning: a score within a minute, and a head that may be kept.

Source: fine-tuning that starts from a probe's head changes the features less (Kumar et al., arXiv
2202.10054); on few images it may be the better model as it is.
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
"""When a first number is told, of the features that are there by then."""
MOST_FIRST_VALIDATION = 500
"""Validation images that come before the training images, to score that number on."""
CHUNKS, LEAST_IN_CHUNK = 8, 64
"""Parts of the training images, after each of which the first number may be told."""


def probe_first(model: Model, images: ImageDataset, site: TrainContext) -> float | None:
    """Fit a head to the model's frozen features, and put it in place.

    Where the features take longer, a first number is told of those that are there after 40 seconds;
    it changes nothing.

    Returns:
        The accuracy on the validation images; None where there are none, where images have several
        labels, or where a class has no training image that can be read: the head then stays zero.
    """
    if "validation" not in images.splits or images.is_multi_label:
        return None
    model.to(site.device)
    train, validation = _Rows.collect(model, images, site)
    if len(np.unique(train.labels)) < len(images.classes):
        return None
    probe = _fit(train, validation, num_classes=len(images.classes))
    set_head(model, torch.from_numpy(probe.weights), torch.from_numpy(probe.bias))
    site.view.log(
        f"probe: {_told(probe, validation)}, with frozen features (l2 {probe.l2:g}): what "
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
        cls, model: Model, images: ImageDataset, site: TrainContext
    ) -> tuple["_Rows", "_Rows"]:
        """Return the training and the validation rows, in a random order, always the same."""
        train, validation = (_shuffled(images.splits[s]) for s in ("train", "validation"))
        first, rest = _divided(validation, MOST_FIRST_VALIDATION)
        work = [first, *_chunks(train), *rest]
        total, done, since, is_told = sum(map(len, work)), 0, time.perf_counter(), False
        found: list[Features] = []
        site.view.start("features", total=total)
        try:
            for number, part in enumerate(work):
                found.append(_extract(model, part, site, done=done, total=total))
                done += len(part)
                is_due = time.perf_counter() - since > FIRST_AFTER_SECONDS
                if is_due and not is_told and 0 < number < len(work) - 1:
                    is_told = _tell_first(found, num_classes=len(images.classes), site=site)
        finally:
            site.view.finish()
        end = len(work) - len(rest)
        return cls.joined(found[1:end]), cls.joined([found[0], *found[end:]])


def _shuffled(examples: Examples) -> Examples:
    return examples.select(epoch_order(0, 0, len(examples), blocks=examples.blocks()))


def _divided(examples: Examples, count: int) -> tuple[Examples, list[Examples]]:
    """Return the first of some examples, and the rest if there is one."""
    places = np.arange(len(examples))
    rest = [examples.select(places[count:])] if len(places) > count else []
    return examples.select(places[:count]), rest


def _chunks(examples: Examples) -> list[Examples]:
    count = min(CHUNKS, max(1, len(examples) // LEAST_IN_CHUNK))
    return [examples.select(part) for part in np.array_split(np.arange(len(examples)), count)]


def _extract(
    model: Model, part: Examples, site: TrainContext, *, done: int, total: int
) -> Features:
    return extract_features(
        model,
        part,
        preprocessing=model.preprocessing,
        device=site.device,
        report_progress=lambda own, _: site.view.update(done + own, total, title="features"),
        cache=cache_dir() / "features",
    )


def _tell_first(found: list[Features], *, num_classes: int, site: TrainContext) -> bool:
    """Say what a probe of the features so far gives, if every class is among them."""
    validation, train = _Rows.joined(found[:1]), _Rows.joined(found[1:])
    if len(np.unique(train.labels)) < num_classes:
        return False
    probe = _fit(train, validation, num_classes=num_classes)
    count = len(train.labels)
    site.view.log(f"first probe, of {count:,} training images: {_told(probe, validation)}")
    return True


def _fit(train: _Rows, validation: _Rows, *, num_classes: int) -> Probe:
    held = (validation.features, validation.labels)
    return linear_probe(
        train.features, train.labels, *held, num_classes=num_classes, validation=held, join=False
    )


def _told(probe: Probe, validation: _Rows) -> str:
    return f"{100 * probe.accuracy:.1f} % of {len(validation.labels):,} validation images"


Rows = tuple[np.ndarray, np.ndarray]
"""Features (N, D) and labels (N,)."""


def probe_seen_classes(train: Rows, validation: Rows, test: Rows) -> tuple[int, float]:
    """Fit a probe to the training and validation rows, and score the test rows once.

    A few hundred images leave classes out: of the 800 of Sun397, which has 397 classes, as of
    others. Classes without a row are never the answer; test rows of them count as wrong.

    Args:
        train: to choose the strength by, together with
        validation: which is fitted too in the end.
        test: scored.

    Returns:
        How many test rows are right, and the chosen l2.
    """
    first = np.unique(train[1])
    held = _among(validation, first)
    few = _among(train, first)
    choice = linear_probe(*few, *held, num_classes=len(first), validation=held, join=False)
    everything = tuple(np.concatenate(parts) for parts in zip(train, validation, strict=True))
    classes = np.unique(everything[1])
    fitted, scored = _among((everything[0], everything[1]), classes), _among(test, classes)
    probe = linear_probe(*fitted, *scored, num_classes=len(classes), l2_grid=(choice.l2,))
    return int((probe.predictions == scored[1]).sum()), choice.l2


def _among(rows: Rows, classes: np.ndarray) -> Rows:
    """Return the rows of some classes, these numbered anew from 0."""
    features, labels = rows
    known = np.isin(labels, classes)
    return features[known], np.searchsorted(classes, labels[known])
