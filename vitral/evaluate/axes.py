"""Standardised features, and the axes along which they vary."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from vitral.evaluate.arrays import chunks


@dataclass(frozen=True, eq=False)
class Standard:
    """How features are standardised: (x - mean) / scale."""

    mean: torch.Tensor
    """(D,) float64."""
    scale: torch.Tensor
    """(D,) float64, above 0."""

    def rows(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, D) standardised, float64."""
        return (features.double() - self.mean).div_(self.scale)

    def parts(self, features: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """Give features standardised, some rows at a time."""
        for part in chunks(len(features), width=features.shape[1]):
            yield part, self.rows(features[part])

    def folded(self, weights: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return weights (D, K) and bias (K,) of standardised features as of the original ones."""
        own = weights / self.scale[:, None]
        return own, bias - self.mean @ own


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


def smaller_gram(features: torch.Tensor, standard: Standard) -> torch.Tensor:
    """Return Z^T Z (D, D) or Z Z^T (N, N) of the standardised features Z, whichever is smaller."""
    count, width = features.shape
    if count < width:
        return _gram(standard.rows(features).T)
    gram = torch.zeros(width, width, dtype=torch.float64, device=features.device)
    for _, rows in standard.parts(features):
        gram += _gram(rows)
    return gram


def _gram(rows: torch.Tensor) -> torch.Tensor:
    """Return rows^T rows."""
    if rows.is_cuda:
        return rows.T @ rows
    array = rows.numpy()
    return torch.from_numpy(array.T @ array)  # NumPy computes one half and mirrors it


def principal_axes(features: torch.Tensor, standard: Standard) -> tuple[torch.Tensor, torch.Tensor]:
    """Decompose the standardised features Z of rank r once: Z^T Z = axes diag(squares) axes^T.

    Returns:
        axes (D, r), orthonormal columns, and squares (r,), ascending and above 0. Directions whose
        square is within the rounding of the largest are left out.
    """
    gram = smaller_gram(features, standard)
    parts = np.linalg.eigh(gram.cpu().numpy())  # faster than torch's on the CPU
    squares, vectors = (torch.from_numpy(part).to(gram.device) for part in parts)
    kept = squares > squares[-1].clamp(min=0) * len(gram) * torch.finfo(torch.float64).eps
    squares, vectors = squares[kept], vectors[:, kept]
    if len(gram) == features.shape[1]:
        return vectors, squares
    return standard.rows(features).T @ (vectors / squares.sqrt()), squares
