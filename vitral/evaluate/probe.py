"""Linear probe: logistic regression on frozen features, its penalty chosen by validation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vitral.config.checks import check_positive
from vitral.errors import RequestError
from vitral.evaluate.arrays import (
    FeatureArray,
    LabelArray,
    LabeledFeatures,
    Standardizer,
    check_every_class,
    check_matching,
    check_pair,
    chunks,
    moments,
    score,
)
from vitral.evaluate.logistic_regression import RotatedProblem, rotated

L2_GRID = (0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0)
VALIDATION_SHARE = 0.2
_MAX_STEPS = 300

Head = tuple[torch.Tensor, torch.Tensor]
"""Weights (D, K) and bias (K,), float64."""


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier of frozen features, and its test score."""

    accuracy: float
    """On the test rows, which were scored once; 0..1."""
    predictions: np.ndarray
    """(M,) int64."""
    probabilities: np.ndarray
    """(M, K) float32, rows sum to 1."""
    l2: float
    """The chosen strength; scikit-learn's C is 1 / l2."""
    validation_accuracy: dict[float, float]
    """By l2; empty if there was nothing to choose. If the best is at an end, widen the grid."""
    weights: np.ndarray
    """(D, K) float64, for the features as given: a head can start from them."""
    bias: np.ndarray
    """(K,) float64."""


def linear_probe(
    train_features: FeatureArray,
    train_labels: LabelArray,
    test_features: FeatureArray,
    test_labels: LabelArray,
    *,
    num_classes: int,
    validation: tuple[FeatureArray, LabelArray] | None = None,
    l2_grid: Sequence[float] = L2_GRID,
    join: bool = True,
    seed: int = 0,
) -> Probe:
    """Fit logistic regression to frozen features, and score the test rows once.

    Features are standardised by the fitted rows. Every l2 is fitted to four fifths of each class's
    training rows, and the one of highest accuracy on the rest is chosen (ties go to the strongest).
    It is then fitted to all rows, including those of `validation`. The loss is the sum over rows
    + l2 / 2 |W|^2, so that an l2 means the same for both numbers of rows.

    Args:
        train_features: (N, D), of any float type; float64 is fitted in float64, others in float32.
        train_labels: (N,) in 0..num_classes - 1, each class at least once.
        test_features: (M, D).
        test_labels: (M,).
        num_classes: K.
        validation: features and labels to choose l2 by, instead of a part of the training rows.
        l2_grid: candidates; with a single one nothing is chosen.
        join: whether the final fit includes the rows that l2 was chosen by; false if they are
            needed for another choice later.
        seed: of the split of the training rows.

    Raises:
        RequestError: shapes or types do not fit, there is no row, an l2 is not above 0, or every
            class has a single row, so that there is nothing to choose l2 by.
        DataError: a feature is not finite, a label is out of range, or a class has no training row.
    """
    if not len(l2_grid):
        raise RequestError("l2_grid is empty: give at least one strength")
    for l2 in l2_grid:
        check_positive(l2=l2)
    train, test = check_pair(
        train_features, train_labels, test_features, test_labels, num_classes=num_classes
    )
    check_every_class(train.labels, num_classes, part="train_labels")
    if validation is None:
        fitted, held_out = (train, train) if len(l2_grid) == 1 else _divided(train, seed)
        everything = train
    else:
        fitted, held_out = (
            train,
            check_matching(train, "validation", *validation, num_classes=num_classes),
        )
        everything = _joined(train, held_out) if join else train
    problem = _problem(everything, num_classes)
    chosen, start = l2_grid[0], None
    accuracies: dict[float, float] = {}
    if len(l2_grid) > 1:
        chosen, accuracies, head = _choose(_problem(fitted, num_classes), held_out, l2_grid)
        if not join:
            return _scored(head, test, chosen, accuracies)
        start = problem.to_rotated(head)
    head = problem.from_rotated(problem.fit(chosen, max_steps=_MAX_STEPS, start=start))
    return _scored(head, test, chosen, accuracies)


def _choose(
    problem: RotatedProblem, held_out: LabeledFeatures, l2_grid: Sequence[float]
) -> tuple[float, dict[float, float], Head]:
    """Return the best l2, the accuracy of each l2, and the head of the best."""
    heads: dict[float, Head] = {}
    accuracies: dict[float, float] = {}
    start = None
    for l2 in sorted(l2_grid, reverse=True):
        start = problem.fit(l2, max_steps=_MAX_STEPS, start=start)
        heads[l2] = problem.from_rotated(start)
        answers = [logits.argmax(dim=1) for logits in _logits(heads[l2], held_out)]
        accuracies[l2] = score(torch.cat(answers), held_out.labels).accuracy
    best = max(accuracies, key=lambda l2: (accuracies[l2], l2))
    return best, accuracies, heads[best]


def _problem(train: LabeledFeatures, num_classes: int) -> RotatedProblem:
    mean, std = moments(train.features)
    rounding = torch.finfo(train.features.dtype).eps * mean.abs()
    # Do not amplify the rounding error of a constant feature.
    scale = torch.where(std > rounding, std, 1.0)
    return rotated(train, Standardizer(mean, scale), num_classes)


def _divided(train: LabeledFeatures, seed: int) -> tuple[LabeledFeatures, LabeledFeatures]:
    """Hold out a share of each class's rows, at least one if there are two or more."""
    labels = train.labels.cpu().numpy()
    generator = np.random.default_rng(seed)
    is_held_out = np.zeros(len(labels), bool)
    for number in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == number))
        count = max(1, int(len(rows) * VALIDATION_SHARE)) if len(rows) > 1 else 0
        is_held_out[rows[:count]] = True
    if not is_held_out.any():
        raise RequestError(
            "every class has a single training row, so none is left to choose l2 by: give "
            "validation=(features, labels), or an l2_grid of one value"
        )
    return train.select(np.flatnonzero(~is_held_out)), train.select(np.flatnonzero(is_held_out))


def _joined(train: LabeledFeatures, held_out: LabeledFeatures) -> LabeledFeatures:
    features = torch.cat([train.features, held_out.features])  # in the more precise of their types
    return LabeledFeatures(features, torch.cat([train.labels, held_out.labels]))


def _logits(head: Head, rows: LabeledFeatures) -> Iterator[torch.Tensor]:
    """Yield logits (n, K) float64 in chunks of rows."""
    weights, bias = head
    for part in chunks(len(rows), width=max(weights.shape)):
        yield torch.addmm(bias, rows.features[part].double(), weights)


def _scored(head: Head, test: LabeledFeatures, l2: float, accuracies: dict[float, float]) -> Probe:
    shares = torch.cat([logits.softmax(dim=1).float() for logits in _logits(head, test)])
    scored = score(shares.argmax(dim=1), test.labels)
    weights, bias = (part.cpu().numpy() for part in head)
    return Probe(
        scored.accuracy, scored.predictions, shares.cpu().numpy(), l2, accuracies, weights, bias
    )
