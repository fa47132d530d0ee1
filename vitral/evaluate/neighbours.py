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
    chunks,
    labelled,
    labelled_pair,
    score,
)

K, TEMPERATURE = 20, 0.07
KS, TEMPERATURES = (10, 20, 100, 200), (0.03, 0.07, 0.2)
_TRAIN_ROWS, _QUERIES = 16_384, 1_024
"""Compared at once: 64 MB of similarities."""


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
    """Let the k nearest training rows vote for each test row.

    A vote weighs exp(cosine / temperature). Of training rows that are equally near, any
    may vote. A class without a training row is never answered. Beside the arrays, memory holds
    normalised test rows, their k neighbours, and one block of comparisons.

    Args:
        train_features: (N, D), of any float type; compared in float32, or float64 if they are.
        train_labels: (N,) in 0..num_classes - 1.
        test_features: (M, D).
        test_labels: (M,).
        num_classes: K.
        k: neighbours that vote, N at most.
        temperature: the smaller, the more the nearest count.

    Raises:
        RequestError: shapes or types do not fit, there is no row, k or the temperature is out of
            range.
        DataError: a feature is not finite, a row is all zeros, so that it has no direction, or a
            label is out of range.
    """
    check_positive(temperature=temperature)
    train, test = labelled_pair(
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
    """The settings of `knn` that are right most often on the training rows."""

    k: int
    temperature: float
    accuracies: dict[tuple[int, float], float]
    """By (k, temperature): the share of rows that their neighbours name rightly."""


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
    """Choose k and temperature by leaving each training row out and letting the others name it.

    That is exact, and no test row is seen. Copies of an image among the training rows name each
    other and favour a small k. A k that is not below the number of rows is left out.

    Args:
        train_features: (N, D), as for `knn`.
        train_labels: (N,) in 0..num_classes - 1.
        num_classes: K.
        ks: to choose from; of equally good ones the first, with its first temperature.
        temperatures: to choose from.
        max_queries: rows that are left out in turn, drawn at random where there are more.
        seed: of that draw.

    Raises:
        RequestError: no k is below the number of rows, or as in `knn`.
        DataError: as in `knn`.
    """
    train = labelled("train", train_features, train_labels, num_classes=num_classes)
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
    asked = train.select(queries)
    own = torch.from_numpy(queries).to(train.features.device)
    cosines, rows = _nearest(train.features, asked.features, max(usable), own=own)
    accuracies = {}
    for k in usable:
        for temperature in temperatures:
            labels = train.labels[rows[:, :k]]
            answers = _vote(cosines[:, :k], labels, temperature, num_classes)
            accuracies[k, temperature] = score(answers, asked.labels).accuracy
    k, temperature = max(accuracies, key=lambda settings: accuracies[settings])
    return ChosenNeighbours(k, temperature, accuracies)


def _nearest(
    train: torch.Tensor, queries: torch.Tensor, k: int, *, own: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the k training rows that are most like each query, the nearest first.

    Args:
        train: (N, D).
        queries: (M, D).
        k: N at most.
        own: (M,) the training row that each query is, which is then not its neighbour.

    Returns:
        Cosines (M, k), and the rows' numbers (M, k).
    """
    kind = torch.float64 if train.dtype == torch.float64 else torch.float32
    asked = _directions(queries, kind)
    count = len(asked)
    best = torch.full((count, k), -torch.inf, dtype=kind, device=train.device)
    rows = torch.zeros(count, k, dtype=torch.int64, device=train.device)
    for start in range(0, len(train), _TRAIN_ROWS):
        block = _directions(train[start : start + _TRAIN_ROWS], kind)
        for first in range(0, count, _QUERIES):
            part = slice(first, first + _QUERIES)
            cosines = asked[part] @ block.T
            if own is not None:
                _leave_out(cosines, own[part] - start)
            found, place = cosines.topk(min(k, len(block)), dim=1)
            both = torch.cat([best[part], found], dim=1)
            numbers = torch.cat([rows[part], place + start], dim=1)
            best[part], order = both.topk(k, dim=1)
            rows[part] = numbers.gather(1, order)
    return best, rows


def _leave_out(cosines: torch.Tensor, own: torch.Tensor) -> None:
    """Make each query's own column, where the block has it, the last choice."""
    inside = torch.nonzero((own >= 0) & (own < cosines.shape[1])).flatten()
    cosines[inside, own[inside]] = -torch.inf


def _vote(
    cosines: torch.Tensor, labels: torch.Tensor, temperature: float, num_classes: int
) -> torch.Tensor:
    """Return the class (M,) with the largest sum of weights; cosines (M, k), the nearest first."""
    answers = torch.empty(len(cosines), dtype=torch.int64, device=cosines.device)
    for part in chunks(len(cosines), width=num_classes + cosines.shape[1]):
        own = cosines[part].double()
        weights = ((own - own[:, :1]) / temperature).exp()  # the nearest has 1, so none overflows
        votes = torch.zeros(len(own), num_classes, dtype=weights.dtype, device=weights.device)
        answers[part] = votes.scatter_add_(1, labels[part], weights).argmax(dim=1)
    return answers


def _directions(features: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """Return rows of length 1, whatever their scale."""
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
