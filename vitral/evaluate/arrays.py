"""Features and labels as arrays: containers, and checks of given ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vitral.errors import DataError, RequestError

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Features:
    """Input of a model's head for the readable examples, in their order."""

    values: np.ndarray
    """(N, D) float32, finite."""
    labels: np.ndarray
    """(N,) int64; for multi-label data (N, K) uint8 of 0 and 1."""
    indices: np.ndarray
    """(N,) int64: indices of the examples."""
    errors: dict[int, str]
    """Why an example could not be read, by index."""


FeatureArray = np.ndarray | torch.Tensor
LabelArray = np.ndarray | torch.Tensor | Sequence[int]
_VALUES_AT_ONCE = 1 << 24
"""Size of a temporary array: at most 128 MB of float64."""


@dataclass(frozen=True, eq=False)
class LabeledFeatures:
    """Checked features and their classes."""

    features: torch.Tensor
    """(N, D), of any float type, finite."""
    labels: torch.Tensor
    """(N,) int64 in 0..K-1, on the device of the features."""

    def __len__(self) -> int:
        return len(self.features)

    def select(self, rows: np.ndarray) -> LabeledFeatures:
        """Return some of the rows."""
        chosen = torch.from_numpy(rows).to(self.features.device)
        return LabeledFeatures(self.features[chosen], self.labels[chosen])


@dataclass(frozen=True, eq=False)
class Score:
    """Predictions for the test rows, and their accuracy."""

    accuracy: float
    """Share of right predictions, 0..1."""
    predictions: np.ndarray
    """(M,) int64, one class per row; ties go to the lowest class."""


def check_labeled(
    part: str, features: FeatureArray, labels: LabelArray, *, num_classes: int | None
) -> LabeledFeatures:
    """Check the rows of one split.

    Tensors on a CUDA device stay there; everything else is computed on the CPU.

    Args:
        part: "train", "test" or "validation", with which the arguments' names begin.
        features: (N, D), of any float type.
        labels: (N,) whole numbers.
        num_classes: K, which all labels must be below; None: no limit.

    Raises:
        RequestError: shapes or types do not fit, or there is no row.
        DataError: a feature is not finite, or a label is not in 0..num_classes - 1.
    """
    rows = _features(f"{part}_features", features)
    classes = check_labels(f"{part}_labels", labels, num_classes=num_classes)
    if len(rows) != len(classes):
        raise RequestError(
            f"{part}_features has {len(rows)} rows, {part}_labels {len(classes)}: "
            "give a label a row"
        )
    return LabeledFeatures(rows, torch.from_numpy(classes).to(rows.device))


def check_pair(
    train_features: FeatureArray,
    train_labels: LabelArray,
    test_features: FeatureArray,
    test_labels: LabelArray,
    *,
    num_classes: int | None,
) -> tuple[LabeledFeatures, LabeledFeatures]:
    """Check two splits as `check_labeled` does, and that they match; move both to one device."""
    train = check_labeled("train", train_features, train_labels, num_classes=num_classes)
    return train, check_matching(train, "test", test_features, test_labels, num_classes=num_classes)


def check_matching(
    train: LabeledFeatures,
    part: str,
    features: FeatureArray,
    labels: LabelArray,
    *,
    num_classes: int | None,
) -> LabeledFeatures:
    """Check another split, which must be as wide as `train`, and move it to that device."""
    other = check_labeled(part, features, labels, num_classes=num_classes)
    width, other_width = train.features.shape[1], other.features.shape[1]
    if other_width != width:
        raise RequestError(
            f"train_features has {width} columns, {part}_features {other_width}: "
            "take both from the same model"
        )
    device = train.features.device
    return LabeledFeatures(other.features.to(device), other.labels.to(device))


def check_labels(name: str, labels: LabelArray, *, num_classes: int | None) -> np.ndarray:
    """Return labels as (N,) int64.

    Raises:
        RequestError: they are not one whole number a row, or `num_classes` is below 1.
        DataError: one is not in 0..num_classes - 1.
    """
    if num_classes is not None and num_classes < 1:
        raise RequestError(f"num_classes={num_classes} must be 1 or more")
    array = labels.cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if array.ndim == 2:
        raise RequestError(
            f"{name} has the shape {array.shape}, several classes a row: this score is for one "
            "class a row, (N,) whole numbers"
        )
    if array.ndim != 1:
        raise RequestError(f"{name} has the shape {array.shape}: give one class a row, (N,)")
    if len(array) and array.dtype.kind not in "iu":
        raise RequestError(f"{name} is of type {array.dtype}: give whole numbers from 0 on")
    array = array.astype(np.int64)
    outside = array < 0 if num_classes is None else (array < 0) | (array >= num_classes)
    if outside.any():
        row = int(outside.argmax())
        most = "" if num_classes is None else f"..{num_classes - 1} (num_classes={num_classes})"
        raise DataError(f"{name}[{row}]={array[row]}: classes are numbered from 0{most}")
    return array


def check_every_class(labels: torch.Tensor, num_classes: int, *, part: str) -> None:
    """Raise a DataError unless every class has a training row."""
    counts = torch.bincount(labels, minlength=num_classes)
    absent = torch.nonzero(counts == 0).flatten().tolist()
    if absent:
        more = f" (nor have {len(absent) - 1} more)" if len(absent) > 1 else ""
        raise DataError(
            f"class {absent[0]} has no row in {part}{more}: give at least one of each of the "
            f"{num_classes} classes, or number the classes that there are anew"
        )


def chunks(count: int, *, width: int) -> Iterator[slice]:
    """Yield slices of rows such that a temporary array of `width` values a row stays small."""
    step = max(1, _VALUES_AT_ONCE // max(width, 1))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def score(predictions: torch.Tensor, labels: torch.Tensor) -> Score:
    """Compare predictions (M,) with labels (M,)."""
    accuracy = (predictions == labels).double().mean().item()
    return Score(accuracy, predictions.cpu().numpy())


def _features(name: str, features: FeatureArray) -> torch.Tensor:
    """Return features as a tensor (N, D), without a copy where possible."""
    rows = features.detach() if isinstance(features, torch.Tensor) else _tensor(name, features)
    if rows.device.type != "cuda":  # others lack float64
        rows = rows.cpu()
    if not rows.is_floating_point():
        raise RequestError(f"{name} is of type {rows.dtype}: give floating-point features")
    if rows.ndim != 2 or not rows.shape[1]:
        raise RequestError(f"{name} has the shape {tuple(rows.shape)}: give (N, D)")
    if not len(rows):
        raise RequestError(f"{name} has no rows: give at least one")
    for part in chunks(len(rows), width=rows.shape[1]):
        finite = rows[part].isfinite().all(dim=1)
        if not finite.all():
            row = part.start + int((~finite).nonzero()[0])
            raise DataError(
                f"{name}[{row}] has NaN or infinite values: leave the row out, or compute "
                "its features in float32"
            )
    return rows


def _tensor(name: str, features: np.ndarray) -> torch.Tensor:
    array = np.asarray(features)
    if array.dtype.kind != "f":
        raise RequestError(f"{name} is of type {array.dtype}: give floating-point features")
    kind = np.dtype(np.float64) if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
    # torch accepts neither read-only memory nor negative strides.
    return torch.from_numpy(np.require(array, dtype=kind, requirements=["C", "W"]))


@dataclass(frozen=True, eq=False)
class Standardizer:
    """Standardises features: (x - mean) / scale."""

    mean: torch.Tensor
    """(D,) float64."""
    scale: torch.Tensor
    """(D,) float64, above 0."""

    def standardize(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, D) standardised, float64."""
        return (features.double() - self.mean).div_(self.scale)

    def standardize_chunks(self, features: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield standardised features in chunks of rows."""
        for part in chunks(len(features), width=features.shape[1]):
            yield part, self.standardize(features[part])

    def unstandardize(
        self, weights: torch.Tensor, bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Convert weights (D, K) and bias (K,) of standardised features to the original ones."""
        original = weights / self.scale[:, None]
        return original, bias - self.mean @ original


def moments(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean (D,) and population standard deviation (D,) of features (N, D), float64."""
    count, width = features.shape
    mean = torch.zeros(width, dtype=torch.float64, device=features.device)
    for part in chunks(count, width=width):
        mean += features[part].double().sum(dim=0) / count
    square = torch.zeros_like(mean)
    for part in chunks(count, width=width):
        square += (features[part].double() - mean).square_().sum(dim=0) / count
    return mean, square.sqrt()


def smaller_gram(features: torch.Tensor, standardizer: Standardizer) -> torch.Tensor:
    """Return Z^T Z (D, D) or Z Z^T (N, N) of the standardised features Z, whichever is smaller."""
    count, width = features.shape
    if count < width:
        return _gram(standardizer.standardize(features).T)
    gram = torch.zeros(width, width, dtype=torch.float64, device=features.device)
    for _, rows in standardizer.standardize_chunks(features):
        gram += _gram(rows)
    return gram


def _gram(rows: torch.Tensor) -> torch.Tensor:
    """Return rows^T rows."""
    if rows.is_cuda:
        return rows.T @ rows
    array = rows.numpy()
    return torch.from_numpy(array.T @ array)  # NumPy computes one half and mirrors it


def principal_axes(
    features: torch.Tensor, standardizer: Standardizer
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decompose the standardised features Z of rank r once: Z^T Z = axes diag(squares) axes^T.

    Returns:
        axes (D, r), orthonormal columns, and squares (r,), ascending and above 0. Directions whose
        square is within rounding error of the largest are left out.
    """
    gram = smaller_gram(features, standardizer)
    parts = np.linalg.eigh(gram.cpu().numpy())  # faster than torch on the CPU
    squares, vectors = (torch.from_numpy(part).to(gram.device) for part in parts)
    nonzero = squares > squares[-1].clamp(min=0) * len(gram) * torch.finfo(torch.float64).eps
    squares, vectors = squares[nonzero], vectors[:, nonzero]
    if len(gram) == features.shape[1]:
        return vectors, squares
    return standardizer.standardize(features).T @ (vectors / squares.sqrt()), squares
