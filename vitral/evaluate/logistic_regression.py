"""Multinomial logistic regression by L-BFGS, along the principal axes of the features."""

from dataclasses import dataclass

import numpy as np
import torch

from vitral.errors import RequestError
from vitral.evaluate.arrays import Labelled, Standard, chunks, labelled, principal_axes

_HISTORY = 20
_TOLERANCE, _TOLERANCE_CHANGE = 1e-6, 1e-9
"""Of the gradient's largest entry where the loss is about as steep as a unit bowl."""


def fit_logistic_regression(
    features: np.ndarray, labels: np.ndarray, *, num_classes: int, l2: float, max_steps: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Fit class weights by penalised maximum likelihood.

    Minimises the mean cross-entropy + l2 / (2 N) |W|^2; the bias is free. This is scikit-learn's
    LogisticRegression with C = 1 / l2.

    Args:
        features: (N, D), best of about unit scale; float32 or float64, which the fit is done in.
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
    train = labelled("train", features, labels, num_classes=num_classes)
    mean = train.features.mean(dim=0, dtype=torch.float64)
    problem = turned(train, Standard(mean, torch.ones_like(mean)), num_classes)
    weights, bias = problem.original(problem.fit(l2, max_steps=max_steps))
    kind = train.features.dtype
    return weights.to(kind).numpy(), bias.to(kind).numpy()


@dataclass(frozen=True, eq=False)
class TurnedRows:
    """Training rows in the coordinates of their principal axes: r of them vary.

    There a weight's curvature is known beforehand, so that L-BFGS starts near Newton's method. The
    penalty is the same in all turned coordinates, and the free bias takes up the centring.
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
    standard: Standard

    def fit(
        self, l2: float, *, max_steps: int, start: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the best weights (r, K) and bias (K,) of the turned rows.

        Args:
            l2: as in `fit_logistic_regression`.
            max_steps: of L-BFGS.
            start: weights and bias to begin with, such as those of a neighbouring l2.
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
        """Return the penalised mean loss, and its slopes by weights (r, K) and bias (K,)."""
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

    def turn(self, head: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights and bias of the original features as those of the turned rows."""
        weights, bias = head
        own = self.axes.T @ (weights * self.standard.scale[:, None])
        return own.to(self.rows.dtype), (bias + self.standard.mean @ weights).to(self.rows.dtype)

    def original(
        self, fitted: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return fitted weights and bias as those of the original features, float64."""
        weights, bias = fitted
        own, own_bias = self.standard.folded(self.axes @ weights.double(), bias.double())
        return own, own_bias


def turned(train: Labelled, standard: Standard, num_classes: int) -> TurnedRows:
    """Standardise training rows, which must then have the mean 0, and turn them."""
    axes, squares = principal_axes(train.features, standard)
    kind = torch.float64 if train.features.dtype == torch.float64 else torch.float32
    rows = torch.empty(len(train), axes.shape[1], dtype=kind, device=axes.device)
    for part, own in standard.parts(train.features):
        rows[part] = own @ axes
    return TurnedRows(rows, train.labels, num_classes, axes, squares, standard)
