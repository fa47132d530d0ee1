"""What a score must be compared with: the majority class, and a linear model on the pixels."""

import dataclasses

import numpy as np

from vitral.data.images import Examples
from vitral.data.loader import evaluation_batches
from vitral.data.order import epoch_order
from vitral.evaluate.linear import fit_logistic_regression
from vitral.spec.preprocessing import Preprocessing

MAX_SIDE = 32
MAX_TRAIN_IMAGES = 10_000
L2 = 10.0
_BATCH_SIZE = 256
_STEPS = 60


def majority_class(labels: np.ndarray, *, num_classes: int) -> int:
    """Return the most frequent class of the training labels; the first of equals."""
    return int(np.bincount(labels, minlength=num_classes).argmax())


def pixel_accuracy(
    train: Examples, test: Examples, *, preprocessing: Preprocessing, num_classes: int
) -> float | None:
    """Return the test accuracy of logistic regression on the pixels.

    Images are brought to at most 32 x 32 pixels; at most 10,000 training images are used, drawn
    evenly.

    Returns:
        None when no image of one of the two could be read.
    """
    scale = min(1.0, MAX_SIDE / max(preprocessing.size))
    height, width = (max(1, round(side * scale)) for side in preprocessing.size)
    small = dataclasses.replace(preprocessing, size=(height, width), antialias=True)
    if len(train) > MAX_TRAIN_IMAGES:
        train = train.select(np.sort(epoch_order(0, 0, len(train))[:MAX_TRAIN_IMAGES]))
    train_pixels, train_labels = _pixels(train, small)
    test_pixels, test_labels = _pixels(test, small)
    if not len(train_labels) or not len(test_labels):
        return None
    mean, std = train_pixels.mean(axis=0), train_pixels.std(axis=0) + 1e-3
    weights, bias = fit_logistic_regression(
        (train_pixels - mean) / std, train_labels, num_classes=num_classes, l2=L2, max_steps=_STEPS
    )
    predicted = ((test_pixels - mean) / std @ weights + bias).argmax(axis=1)
    return float((predicted == test_labels).mean())


def _pixels(examples: Examples, preprocessing: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (N, D) in 0..1 and labels (N,) of the examples that can be read."""
    pixels, labels = [], []
    for batch in evaluation_batches(
        examples, preprocessing=preprocessing, batch_size=_BATCH_SIZE, errors={}
    ):
        valid = batch["valid"].numpy()
        pixels.append(batch["image"].flatten(1).numpy()[valid] / np.float32(255))
        labels.append(batch["label"].numpy()[valid])
    return np.concatenate(pixels), np.concatenate(labels)
