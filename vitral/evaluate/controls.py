"""Controls to compare a score with: the majority class, and a linear model on the pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from vitral.data.loader import evaluation_batches
from vitral.data.order import epoch_order
from vitral.data.sources.listing import is_multi_label, label_text
from vitral.errors import DataError
from vitral.evaluate.arrays import Features
from vitral.evaluate.logistic_regression import fit_logistic_regression

if TYPE_CHECKING:
    from vitral.config.preprocessing import Preprocessing
    from vitral.data.examples import Examples
    from vitral.data.workers import Batch

# 28 x 28 grey or 16 x 16 coloured pixels; bounds the memory together with MAX_TRAIN_IMAGES.
MAX_PIXEL_VALUES = 784
MAX_TRAIN_IMAGES = 10_000
L2 = 10.0
_BATCH_SIZE = 256
_STEPS = 60


def majority_control(
    train_labels: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...],
    *,
    any_label: bool = False,
) -> dict[str, Any]:
    """Score the most frequent answer of training; ties go to the first.

    Args:
        train_labels: (N,) classes, or (N, K) of 0 and 1: then the answer is a set of classes.
        labels: of the scored images.
        classes: names, in order.
        any_label: whether any of an image's classes is right: then the answer is one class.

    Returns:
        `majority_accuracy`, and `majority_class`, the answer as text.
    """
    if any_label:
        best = int(train_labels.sum(axis=0).argmax())
        return {
            "majority_accuracy": float(labels[:, best].mean()),
            "majority_class": classes[best],
        }
    answers, counts = np.unique(train_labels, axis=0, return_counts=True)
    answer = answers[counts.argmax()]
    same = labels == answer
    return {
        "majority_accuracy": float((same if labels.ndim == 1 else same.all(axis=1)).mean()),
        "majority_class": label_text(answer, classes),
    }


def pixel_accuracy(
    train: Examples, test: Examples, *, preprocessing: Preprocessing, num_classes: int
) -> float | None:
    """Return the test accuracy of logistic regression on the pixels.

    Images are shrunk to at most 784 values (28 x 28 grey, 16 x 16 in colour); at most 10,000
    training images are used, drawn at random.

    Returns:
        None for multi-label data, or when no image of either split could be read.
    """
    if is_multi_label(train.labels):
        return None
    small = _small(preprocessing)
    if len(train) > MAX_TRAIN_IMAGES:
        train = train.select(np.sort(epoch_order(0, 0, len(train))[:MAX_TRAIN_IMAGES]))
    parts = list(_pixels(train, small))
    pixels = np.concatenate([part for part, _ in parts])
    labels = np.concatenate([part for _, part in parts])
    if not len(labels):
        return None
    mean, std = pixels.mean(axis=0), pixels.std(axis=0) + 1e-3
    pixels -= mean
    pixels /= std
    weights, bias = fit_logistic_regression(
        pixels, labels, num_classes=num_classes, l2=L2, max_steps=_STEPS
    )
    right = count = 0
    for pixels, labels in _pixels(test, small):
        predicted = ((pixels - mean) / std @ weights + bias).argmax(axis=1)
        right += int((predicted == labels).sum())
        count += len(labels)
    return right / count if count else None


def pixel_features(examples: Examples, *, preprocessing: Preprocessing) -> Features:
    """Return the pixels of examples, shrunk as for `pixel_accuracy`, as features.

    They are in -1..1, so that a black image is not all zeros.

    Raises:
        DataError: no image could be read.
    """
    errors: dict[int, str] = {}
    values, indices = [], []
    for batch in _batches(examples, _small(preprocessing), errors=errors):
        valid = batch["valid"].numpy()
        values.append(batch["image"].flatten(1).numpy()[valid] / np.float32(127.5) - np.float32(1))
        indices.append(batch["index"].numpy()[valid])
    readable = np.concatenate(indices)
    if not len(readable):
        raise DataError("no image could be read: see `vitral data check`")
    return Features(np.concatenate(values), examples.labels[readable], readable, errors)


def _small(preprocessing: Preprocessing) -> Preprocessing:
    """Return the preprocessing with a size of at most MAX_PIXEL_VALUES values."""
    height, width = preprocessing.size
    values = height * width * preprocessing.channels
    scale = min(1.0, (MAX_PIXEL_VALUES / values) ** 0.5)
    size = (max(1, int(height * scale)), max(1, int(width * scale)))
    return dataclasses.replace(preprocessing, size=size, antialias=True)


def _pixels(
    examples: Examples, preprocessing: Preprocessing
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches of pixels (N, D) in 0..1 and labels (N,) of the readable examples."""
    for batch in _batches(examples, preprocessing, errors={}):
        valid = batch["valid"].numpy()
        pixels = batch["image"].flatten(1).numpy()[valid] / np.float32(255)
        yield pixels, batch["label"].numpy()[valid]


def _batches(
    examples: Examples, preprocessing: Preprocessing, *, errors: dict[int, str]
) -> Iterator[Batch]:
    return evaluation_batches(
        examples, preprocessing=preprocessing, batch_size=_BATCH_SIZE, errors=errors
    )
