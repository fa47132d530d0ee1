"""Weighted votes of the nearest training rows, by cosine similarity.

Source: Caron et al., Emerging Properties in Self-Supervised Vision Transformers (arXiv 2104.14294),
section 4.2, and its eval_knn.py: k of 10, 20, 100, 200, temperature 0.07.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vitral.config.checks import check_positive
from vitral.errors import DataError, RequestError
from vitral.evaluate.arrays import (
    FeatureArray,
    LabelArray,
    Score,
    check_labeled,
    check_pair,
    chunks,
    score,
)

K, TEMPERATURE = 20, 0.07
KS, TEMPERATURES = (10, 20, 100, 200), (0.03, 0.07, 0.2)
_TRAIN_ROWS, _QUERIES = 16_384, 1_024
"""Rows compared at once: 64 MB of similarities."""


def knn(
    train_features: FeatureArray,
    train_labels: LabelArray,
    test_features: FeatureArray,
    test_labels: LabelArray,
    *,
    num_classes: int,
    k: int = K,
    temperature: float = TEMPERATURE,
) -> Score:
    """Classify each test row by a weighted vote of its k nearest training rows.

    A vote weighs exp(cosine / temperature). Ties between equally near training rows are broken
    arbitrarily. A class without a training row is never predicted. In addition to the arrays,
    memory holds the normalised test rows, their k neighbours, and one block of comparisons.

    Args:
        train_features: (N, D), of any float type; compared in float32, or float64 if they are.
        train_labels: (N,) in 0..num_classes - 1.
        test_features: (M, D).
        test_labels: (M,).
        num_classes: K.
        k: number of neighbours that vote, N at most.
        temperature: the smaller, the more weight the nearest rows have.

    Raises:
        RequestError: shapes or types do not fit, there is no row, k or the temperature is out of
            range.
        DataError: a feature is not finite, a row is all zeros, so that it has no direction, or a
            label is out of range.
    """
    check_positive(temperature=temperature)
    train, test = check_pair(
        train_features, train_labels, test_features, test_labels, num_classes=num_classes
    )
    _check_k(k, len(train), "k")
    _check_directions("train_features", train.features)
    _check_directions("test_features", test.features)
    cosines, rows = _nearest(train.features, test.features, k)
    answers = _vote(cosines, train.labels[rows], temperature, num_classes)
    return score(answers, test.labels)


@dataclass(frozen=True)
class ChosenNeighbours:
    """The settings of `knn` with the highest leave-one-out accuracy on the training rows."""

    k: int
    temperature: float
    accuracies: dict[tuple[int, float], float]
    """Leave-one-out accuracy by (k, temperature), 0..1."""


def choose_knn(
    train_features: FeatureArray,
    train_labels: LabelArray,
    *,
    num_classes: int,
    ks: Sequence[int] = KS,
    temperatures: Sequence[float] = TEMPERATURES,
    max_queries: int = 10_000,
    seed: int = 0,
) -> ChosenNeighbours:
    """Choose k and temperature by leave-one-out accuracy on the training rows.

    This is exact, and no test row is seen. Copies of an image among the training rows vote for
    each other and favour a small k. A k that is not below the number of rows is skipped.

    Args:
        train_features: (N, D), as for `knn`.
        train_labels: (N,) in 0..num_classes - 1.
        num_classes: K.
        ks: candidates; ties go to the first, with its first temperature.
        temperatures: candidates.
        max_queries: number of rows that are left out in turn, drawn at random if there are more.
        seed: of that draw.

    Raises:
        RequestError: no k is below the number of rows, or as in `knn`.
        DataError: as in `knn`.
    """
    train = check_labeled("train", train_features, train_labels, num_classes=num_classes)
    _check_directions("train_features", train.features)
    if not len(ks) or not len(temperatures):
        raise RequestError("ks or temperatures is empty: give at least one of each")
    check_positive(max_queries=max_queries)
    for temperature in temperatures:
        check_positive(temperature=temperature)
    _check_k(min(ks), len(train) - 1, "the smallest of ks")
    usable = [k for k in ks if k < len(train)]
    queries = np.arange(len(train))
    if len(train) > max_queries:
        queries = np.sort(np.random.default_rng(seed).permutation(queries)[:max_queries])
    left_out = train.select(queries)
    self_rows = torch.from_numpy(queries).to(train.features.device)
    cosines, rows = _nearest(train.features, left_out.features, max(usable), self_rows=self_rows)
    accuracies = {}
    for k in usable:
        for temperature in temperatures:
            labels = train.labels[rows[:, :k]]
            answers = _vote(cosines[:, :k], labels, temperature, num_classes)
            accuracies[k, temperature] = score(answers, left_out.labels).accuracy
    k, temperature = max(accuracies, key=lambda settings: accuracies[settings])
    return ChosenNeighbours(k, temperature, accuracies)


def _nearest(
    train: torch.Tensor, queries: torch.Tensor, k: int, *, self_rows: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the k training rows that are most similar to each query, the nearest first.

    Args:
        train: (N, D).
        queries: (M, D).
        k: N at most.
        self_rows: (M,) the training row that each query is, which is then not its neighbour.

    Returns:
        Cosines (M, k), and the indices of the rows (M, k).
    """
    kind = torch.float64 if train.dtype == torch.float64 else torch.float32
    directions = _directions(queries, kind)
    count = len(directions)
    best = torch.full((count, k), -torch.inf, dtype=kind, device=train.device)
    rows = torch.zeros(count, k, dtype=torch.int64, device=train.device)
    for start in range(0, len(train), _TRAIN_ROWS):
        block = _directions(train[start : start + _TRAIN_ROWS], kind)
        for first in range(0, count, _QUERIES):
            part = slice(first, first + _QUERIES)
            cosines = directions[part] @ block.T
            if self_rows is not None:
                _leave_out(cosines, self_rows[part] - start)
            found, positions = cosines.topk(min(k, len(block)), dim=1)
            both = torch.cat([best[part], found], dim=1)
            numbers = torch.cat([rows[part], positions + start], dim=1)
            best[part], order = both.topk(k, dim=1)
            rows[part] = numbers.gather(1, order)
    return best, rows


def _leave_out(cosines: torch.Tensor, self_rows: torch.Tensor) -> None:
    """Set each query's similarity to itself, where the block has it, to -inf."""
    inside = torch.nonzero((self_rows >= 0) & (self_rows < cosines.shape[1])).flatten()
    cosines[inside, self_rows[inside]] = -torch.inf


def _vote(
    cosines: torch.Tensor, labels: torch.Tensor, temperature: float, num_classes: int
) -> torch.Tensor:
    """Return the class (M,) with the largest sum of weights; cosines (M, k), the nearest first."""
    answers = torch.empty(len(cosines), dtype=torch.int64, device=cosines.device)
    for part in chunks(len(cosines), width=num_classes + cosines.shape[1]):
        chunk = cosines[part].double()
        weights = ((chunk - chunk[:, :1]) / temperature).exp()  # 1 for the nearest: no overflow
        votes = torch.zeros(len(chunk), num_classes, dtype=weights.dtype, device=weights.device)
        answers[part] = votes.scatter_add_(1, labels[part], weights).argmax(dim=1)
    return answers


def _directions(features: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """Return the rows scaled to length 1."""
    rows = features.to(kind, copy=True)
    rows /= rows.abs().amax(dim=1, keepdim=True)  # squares neither overflow nor vanish
    return rows.div_(rows.square().sum(dim=1, keepdim=True).sqrt_())


def _check_k(k: int, most: int, name: str) -> None:
    if not 1 <= k <= most:
        raise RequestError(
            f"{name}={k}, but {most} training rows can vote: use 1..{most}"
            if most
            else f"{name}={k}, but no training row can vote: give more rows"
        )


def _check_directions(name: str, features: torch.Tensor) -> None:
    for part in chunks(len(features), width=features.shape[1]):
        empty = ~features[part].any(dim=1)
        if empty.any():
            row = part.start + int(empty.nonzero()[0])
            raise DataError(
                f"{name}[{row}] is all zeros and has no direction to compare: leave the row out"
            )
