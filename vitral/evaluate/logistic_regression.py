"""Multinomial logistic regression by L-BFGS, along the principal axes of the features."""

from dataclasses import dataclass

import numpy as np
import torch

from vitral.errors import RequestError
from vitral.evaluate.arrays import (
    LabeledFeatures,
    Standardizer,
    check_labeled,
    chunks,
    principal_axes,
)

_HISTORY = 20
_TOLERANCE, _TOLERANCE_CHANGE = 1e-6, 1e-9
"""Of the gradient's largest entry; the problem is scaled to about unit curvature."""


def fit_logistic_regression(
    features: np.ndarray, labels: np.ndarray, *, num_classes: int, l2: float, max_steps: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Fit class weights by penalised maximum likelihood.

    Minimises the mean cross-entropy + l2 / (2 N) |W|^2; the bias is free. This is scikit-learn's
    LogisticRegression with C = 1 / l2.

    Args:
        features: (N, D), ideally of about unit scale; float32 or float64, the type of the fit.
        labels: (N,) in 0..num_classes - 1.
        num_classes: K.
        l2: strength of the penalty.
        max_steps: of L-BFGS.

    Returns:
        Weights (D, K) and biases (K,).

    Raises:
        RequestError: no examples.
    """
    if not len(features):
        raise RequestError("logistic regression has no examples to fit")
    train = check_labeled("train", features, labels, num_classes=num_classes)
    mean = train.features.mean(dim=0, dtype=torch.float64)
    problem = rotated(train, Standardizer(mean, torch.ones_like(mean)), num_classes)
    weights, bias = problem.from_rotated(problem.fit(l2, max_steps=max_steps))
    kind = train.features.dtype
    return weights.to(kind).numpy(), bias.to(kind).numpy()


@dataclass(frozen=True, eq=False)
class RotatedProblem:
    """Logistic regression in the coordinates of the training rows' r principal axes.

    There the curvature of a weight is known in advance, so that L-BFGS starts near Newton's method.
    The penalty is invariant under rotation, and the free bias absorbs the centring.
    """

    rows: torch.Tensor
    """(N, r), float32 or float64: the precision of the fit."""
    labels: torch.Tensor
    """(N,)."""
    num_classes: int
    axes: torch.Tensor
    """(D, r), of the standardised features."""
    squares: torch.Tensor
    """(r,) sums of squares along the axes."""
    standardizer: Standardizer

    def fit(
        self, l2: float, *, max_steps: int, start: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the best weights (r, K) and bias (K,) of the rotated rows.

        Args:
            l2: as in `fit_logistic_regression`.
            max_steps: of L-BFGS.
            start: initial weights and bias, such as those of a neighbouring l2.
        """
        count, kind = len(self.rows), self.rows.dtype
        # Where all classes are equally likely, the curvature is variance / K + l2 / N.
        step = (count / (self.squares / self.num_classes + l2)).sqrt().to(kind)[:, None]
        bias_step = self.num_classes**0.5
        width = self.rows.shape[1]
        point = torch.zeros(width + 1, self.num_classes, dtype=kind, device=self.rows.device)
        if start is not None:
            point[:-1], point[-1] = start[0] / step, start[1] / bias_step
        optimizer = torch.optim.LBFGS(
            [point],
            max_iter=max_steps,
            history_size=_HISTORY,
            tolerance_grad=_TOLERANCE,
            tolerance_change=_TOLERANCE_CHANGE,
            line_search_fn="strong_wolfe",
        )

        def closure() -> float:
            weights = point[:-1] * step
            loss, slope, bias_slope = self.loss(weights, point[-1] * bias_step, l2)
            point.grad = torch.cat([slope * step, bias_slope[None] * bias_step])
            return loss

        optimizer.step(closure)
        return point[:-1] * step, point[-1] * bias_step

    def loss(
        self, weights: torch.Tensor, bias: torch.Tensor, l2: float
    ) -> tuple[float, torch.Tensor, torch.Tensor]:
        """Return the penalised mean loss, and its gradients by weights (r, K) and bias (K,)."""
        count = len(self.rows)
        slope, bias_slope = weights * l2, torch.zeros_like(bias)
        total = l2 / 2 * weights.square().sum(dtype=torch.float64)
        for part in chunks(count, width=4 * self.num_classes):
            rows, wanted = self.rows[part], self.labels[part, None]
            logits = torch.addmm(bias, rows, weights)
            log_sums = logits.logsumexp(dim=1, keepdim=True)
            total += (log_sums - logits.gather(1, wanted)).sum(dtype=torch.float64)
            errors = logits.sub_(log_sums).exp_()
            errors.scatter_add_(1, wanted, -torch.ones_like(log_sums))
            slope.addmm_(rows.T, errors)
            bias_slope += errors.sum(dim=0)
        return float(total) / count, slope / count, bias_slope / count

    def to_rotated(
        self, head: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Convert weights and bias of the original features to those of the rotated rows."""
        weights, bias = head
        rotated_weights = self.axes.T @ (weights * self.standardizer.scale[:, None])
        bias = bias + self.standardizer.mean @ weights
        return rotated_weights.to(self.rows.dtype), bias.to(self.rows.dtype)

    def from_rotated(
        self, fitted: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Convert fitted weights and bias to those of the original features, float64."""
        weights, bias = fitted
        return self.standardizer.unstandardize(self.axes @ weights.double(), bias.double())


def rotated(train: LabeledFeatures, standardizer: Standardizer, num_classes: int) -> RotatedProblem:
    """Standardise training rows, which must then have mean 0, and rotate them."""
    axes, squares = principal_axes(train.features, standardizer)
    kind = torch.float64 if train.features.dtype == torch.float64 else torch.float32
    rows = torch.empty(len(train), axes.shape[1], dtype=kind, device=axes.device)
    for part, standardized in standardizer.standardize_chunks(train.features):
        rows[part] = standardized @ axes
    return RotatedProblem(rows, train.labels, num_classes, axes, squares, standardizer)
