"""Few-shot accuracy of features by regularised least squares: the paper's quick score.

The features are standardised by the support (mean, standard deviation + 1e-5), a constant feature
of 100 is appended, the targets are +1 for the class and -1 for the others, and
the answer is the class of the largest score X W, with W = (X^T X + l2 I)^-1 X^T Y.

Source: ViT paper (arXiv 2010.11929v2) section 4.1; big_vision's evaluators/fewshot_lsr.py, whose
l2 is 2^10. The paper does not state its value.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from vitral.errors import RequestError
from vitral.evaluate.arrays import (
    FeatureArray,
    LabelArray,
    LabeledFeatures,
    Score,
    Standardizer,
    check_every_class,
    check_labels,
    check_pair,
    chunks,
    moments,
    principal_axes,
    score,
    smaller_gram,
)

CONSTANT_FEATURE = 100.0
STD_OFFSET = 1e-5
L2 = 2**10
_MAX_CONDITION = 1e10
"""Condition number up to which a Cholesky factor keeps six digits of the weights."""


def fewshot(
    train_features: FeatureArray,
    train_labels: LabelArray,
    test_features: FeatureArray,
    test_labels: LabelArray,
    *,
    l2: float = L2,
    num_classes: int | None = None,
) -> Score:
    """Fit classes to the support by least squares, and score the test rows; float64 throughout.

    Args:
        train_features: the support, (N, D), of any float type.
        train_labels: (N,) in 0..num_classes - 1, each class at least once.
        test_features: (M, D).
        test_labels: (M,).
        l2: strength of the penalty; 0: the minimum-norm solution.
        num_classes: K; None: the largest label of both splits + 1.

    Raises:
        RequestError: shapes or types do not fit, there is no row, or l2 is negative.
        DataError: a feature is not finite, a label is out of range, or the support lacks a class.
    """
    train, test, num_classes = _checked(
        (train_features, train_labels, test_features, test_labels), [l2], num_classes
    )
    standardizer = _standardizer(train)
    gram = smaller_gram(train.features, standardizer)
    if gram.trace() >= l2 * _MAX_CONDITION:
        return _Decomposed(train, standardizer, num_classes).score(test, l2)
    gram.diagonal().add_(l2)
    factor = torch.linalg.cholesky(gram)
    if len(gram) == train.features.shape[1]:
        weights = torch.cholesky_solve(_products(train, standardizer, num_classes), factor)
    else:
        targets = 2 * torch.nn.functional.one_hot(train.labels, num_classes).double()
        weights = standardizer.standardize(train.features).T @ torch.cholesky_solve(targets, factor)
    return _score(test, standardizer, weights, _bias(train, l2, num_classes))


def fewshot_sweep(
    train_features: FeatureArray,
    train_labels: LabelArray,
    test_features: FeatureArray,
    test_labels: LabelArray,
    *,
    l2s: Sequence[float],
    num_classes: int | None = None,
) -> dict[float, Score]:
    """Return the score of `fewshot` for each of many l2, from one decomposition of the support.

    Raises:
        RequestError, DataError: as `fewshot`; or `l2s` is empty.
    """
    if not len(l2s):
        raise RequestError("l2s is empty: give at least one strength")
    train, test, num_classes = _checked(
        (train_features, train_labels, test_features, test_labels), l2s, num_classes
    )
    decomposed = _Decomposed(train, _standardizer(train), num_classes)
    return {l2: decomposed.score(test, l2) for l2 in l2s}


class _Decomposed:
    """The support along its principal axes, where solving for an l2 is a division."""

    def __init__(
        self, train: LabeledFeatures, standardizer: Standardizer, num_classes: int
    ) -> None:
        self.train, self.standardizer, self.num_classes = train, standardizer, num_classes
        self.axes, self.squares = principal_axes(train.features, standardizer)
        self.products = self.axes.T @ _products(train, standardizer, num_classes)

    def score(self, test: LabeledFeatures, l2: float) -> Score:
        weights = self.axes @ (self.products / (self.squares + l2)[:, None])
        return _score(test, self.standardizer, weights, _bias(self.train, l2, self.num_classes))


def _checked(
    arrays: tuple[FeatureArray, LabelArray, FeatureArray, LabelArray],
    l2s: Sequence[float],
    num_classes: int | None,
) -> tuple[LabeledFeatures, LabeledFeatures, int]:
    for l2 in l2s:
        if not (math.isfinite(l2) and l2 >= 0):
            raise RequestError(f"l2={l2} must be 0 or more; big_vision's is {L2}")
    train, test = check_pair(*arrays, num_classes=num_classes)
    if num_classes is None:
        num_classes = int(max(train.labels.max(), test.labels.max())) + 1
    check_every_class(train.labels, num_classes, part="train_labels")
    return train, test, num_classes


def _standardizer(train: LabeledFeatures) -> Standardizer:
    mean, std = moments(train.features)
    return Standardizer(mean, std + STD_OFFSET)


def _products(train: LabeledFeatures, standardizer: Standardizer, num_classes: int) -> torch.Tensor:
    """Return Z^T Y (D, K). Columns of Z sum to 0, so only the rows of the class itself count."""
    width = train.features.shape[1]
    sums = torch.zeros(num_classes, width, dtype=torch.float64, device=train.features.device)
    for part, rows in standardizer.standardize_chunks(train.features):
        sums.index_add_(0, train.labels[part], rows)
    return 2 * sums.T


def _bias(train: LabeledFeatures, l2: float, num_classes: int) -> torch.Tensor:
    """Return the contribution of the constant feature to the scores, (K,).

    The feature is orthogonal to the standardised ones, so its weight is a separate regression.
    """
    counts = torch.bincount(train.labels, minlength=num_classes).double()
    square = CONSTANT_FEATURE**2
    return square * (2 * counts - len(train)) / (square * len(train) + l2)


def _score(
    test: LabeledFeatures, standardizer: Standardizer, weights: torch.Tensor, bias: torch.Tensor
) -> Score:
    weights, bias = standardizer.unstandardize(weights, bias)
    width = max(weights.shape)
    answers = [
        torch.addmm(bias, test.features[part].double(), weights).argmax(dim=1)
        for part in chunks(len(test), width=width)
    ]
    return score(torch.cat(answers), test.labels)


def draw_support(labels: np.ndarray, *, shots: int, seed: int, num_classes: int) -> np.ndarray:
    """Draw the same number of examples of each class, as big_vision does.

    One generator per seed permutes the examples of each class in turn, and the first of each are
    taken. So for the same seed, a support of fewer shots is a subset of one of more shots.

    Args:
        labels: (N,) in 0..num_classes - 1.
        shots: examples per class.
        seed: of `numpy.random.default_rng`, 0 or more.
        num_classes: K.

    Returns:
        Indices (K * shots,), class by class.

    Raises:
        RequestError: a class has fewer examples, `shots` is below 1, `seed` below 0, or labels are
            not one whole number an example.
        DataError: a label is out of range.

    Source: big_vision, evaluators/fewshot_lsr.py.
    """
    labels = check_labels("labels", labels, num_classes=num_classes)
    if shots < 1:
        raise RequestError(f"shots={shots} must be 1 or more")
    if seed < 0:
        raise RequestError(f"seed={seed} must be 0 or more")
    counts = np.bincount(labels, minlength=num_classes)
    if counts.min() < shots:
        _too_few(counts, shots)
    # Per class, the same as np.flatnonzero(labels == number).
    by_class = np.split(np.argsort(labels, kind="stable"), counts.cumsum()[:-1])
    generator = np.random.default_rng(seed)
    return np.concatenate([generator.permutation(indices)[:shots] for indices in by_class])


def _too_few(counts: np.ndarray, shots: int) -> None:
    smallest, fewest = int(counts.argmin()), int(counts.min())
    more = int((counts < shots).sum()) - 1
    others = f" (and {more} more classes have too few)" if more else ""
    hint = f"use shots={fewest} at most" if fewest else "give examples of every class"
    raise RequestError(f"shots={shots}: class {smallest} has {fewest} examples{others}: {hint}")
