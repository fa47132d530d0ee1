"""Metrics of predictions: accuracy, precision, recall, F1, average precision, calibration."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

THRESHOLD = 0.5
"""Probability above which a class is predicted for multi-label data."""
NUM_BINS = 15
"""Bins of the calibration error: Guo et al. 2017 use 15 in Table 1."""


@dataclass(frozen=True)
class Calibration:
    """Confidence and accuracy per bin of confidence, and their distance."""

    counts: Integers
    """(bins,) images in each bin."""
    confidence: Floats
    """(bins,) mean confidence of the bin's images; NaN for an empty bin."""
    accuracy: Floats
    """(bins,) share of the bin's images that are right; NaN for an empty bin."""
    error: float
    """Expected calibration error, 0..1."""
    mean_confidence: float
    mean_accuracy: float


def right_answers(probabilities: NDArray[np.floating], labels: Integers) -> NDArray[np.bool_]:
    """Return which images are predicted correctly (N,).

    Args:
        probabilities: (N, K).
        labels: (N,) classes: correct if it is the most probable one; or for multi-label data
            (N, K) of 0 and 1: correct if the image's classes are exactly those above THRESHOLD.
    """
    if labels.ndim == 1:
        right: NDArray[np.bool_] = probabilities.argmax(axis=1) == labels
        return right
    return ((probabilities > THRESHOLD) == labels.astype(bool)).all(axis=1)


def answers_within(
    probabilities: NDArray[np.floating], labels: Integers, *, most: int
) -> NDArray[np.bool_]:
    """Return for which images (N,) any of the `most` most probable classes is one of theirs.

    Args:
        probabilities: (N, K).
        labels: (N, K) of 0 and 1.
        most: number of classes that count, at most K.
    """
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :most]
    return np.asarray(np.take_along_axis(labels, best, axis=1).any(axis=1), np.bool_)


def average_precisions(probabilities: NDArray[np.floating], labels: Integers) -> Floats:
    """Compute each class's average precision (K,), NaN for a class that no image has.

    It is the sum over thresholds of precision times the increase in recall, with the images sorted
    by probability. Images of equal probability share a threshold, so their order does not matter.

    Args:
        probabilities: (N, K).
        labels: (N, K) of 0 and 1.

    Source: Manning et al., Introduction to Information Retrieval (2008), 8.4, not interpolated.
    """
    return np.array(
        [
            _average_precision(scores.astype(np.float64), marks.astype(np.float64))
            for scores, marks in zip(probabilities.T, labels.T, strict=True)
        ]
    )


def _average_precision(scores: Floats, marks: Floats) -> float:
    if not marks.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(marks[order])
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    found, given = found[last_of_equals], np.flatnonzero(last_of_equals) + 1
    gains = np.diff(found, prepend=0.0)
    return float((gains * found / given).sum() / marks.sum())


def decision_counts(
    probabilities: NDArray[np.floating], labels: Integers
) -> tuple[Integers, Integers, Integers]:
    """Count per class, (K,) each, the actual positives, predicted positives and true positives.

    Args:
        probabilities: (N, K); a class is predicted above THRESHOLD.
        labels: (N, K) of 0 and 1.
    """
    has, given = labels.astype(bool), probabilities > THRESHOLD
    counts = (mask.sum(axis=0, dtype=np.int64) for mask in (has, given, has & given))
    first, second, third = counts
    return first, second, third


def f1_scores(has: Integers, given: Integers, both: Integers) -> Floats:
    """Compute F1 from counts: 2 both / (has + given); NaN where both are 0."""
    return ratio(2.0 * both, has + given)


def count_confusions(labels: Integers, predictions: Integers, *, num_classes: int) -> Integers:
    """Count images by true class (row) and predicted class (column): (K, K)."""
    pairs = labels * num_classes + predictions
    counts = np.bincount(pairs, minlength=num_classes**2).astype(np.int64)
    return counts.reshape(num_classes, num_classes)


def precision_and_recall(confusions: Integers) -> tuple[Floats, Floats]:
    """Compute each class's precision and recall, both (K,), from counts (K, K).

    Precision is the share of a class's predictions that are correct, NaN if it was never predicted.
    Recall is the share of the class's images that were predicted as it, NaN if it has no images.
    """
    right = np.diag(confusions).astype(np.float64)
    return ratio(right, confusions.sum(axis=0)), ratio(right, confusions.sum(axis=1))


def frequent_confusions(confusions: Integers, limit: int) -> list[tuple[int, int, int]]:
    """Return the most frequent errors as (true class, predicted class, images), descending."""
    wrong = confusions.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    true, predicted = np.unravel_index(order, wrong.shape)
    triples = zip(true.tolist(), predicted.tolist(), wrong[true, predicted].tolist(), strict=True)
    return [triple for triple in triples if triple[2] > 0]


def calibrate(
    probabilities: NDArray[np.floating], labels: Integers, *, num_bins: int = NUM_BINS
) -> Calibration:
    r"""Compare confidence with accuracy in bins of equal width.

    With B_m the images whose confidence (largest probability) lies in ((m - 1)/M, m/M], the
    expected calibration error is the sum over m of |B_m|/n * |acc(B_m) - conf(B_m)|.

    Args:
        probabilities: (N, K); N > 0.
        labels: (N,) true classes; or (N, K) of 0 and 1: then each pair of image and class counts,
            with its probability as confidence, and is right if the image has the class.
        num_bins: M.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equations 2, 3 and 5.
    """
    if labels.ndim == 2:
        confidence, right = _as_floats(probabilities.ravel()), _as_floats(labels.ravel())
    else:
        confidence = _as_floats(probabilities.max(axis=1))
        right = _as_floats(right_answers(probabilities, labels))
    bins = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins).astype(np.int64)
    bin_confidence = ratio(np.bincount(bins, weights=confidence, minlength=num_bins), counts)
    bin_accuracy = ratio(np.bincount(bins, weights=right, minlength=num_bins), counts)
    gaps = np.nan_to_num(np.abs(bin_accuracy - bin_confidence))
    return Calibration(
        counts=counts,
        confidence=bin_confidence,
        accuracy=bin_accuracy,
        error=float((counts * gaps).sum() / len(right)),
        mean_confidence=float(confidence.mean()),
        mean_accuracy=float(right.mean()),
    )


def _as_floats(values: NDArray[Any]) -> Floats:
    return values.astype(np.float64)


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Divide, giving NaN where the whole is 0."""
    result = np.full(part.shape, np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result
