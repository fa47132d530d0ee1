"""Multinomial logistic regression by L-BFGS."""

import numpy as np
import torch
import torch.nn.functional as F

from vitral.errors import RequestError


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
    inputs = torch.from_numpy(features)
    targets = torch.from_numpy(np.asarray(labels, np.int64))
    weights = torch.zeros(inputs.shape[1], num_classes, dtype=inputs.dtype, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=inputs.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, bias], max_iter=max_steps, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        penalty = l2 / (2 * len(inputs)) * weights.square().sum()
        loss = F.cross_entropy(inputs @ weights + bias, targets) + penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach().numpy(), bias.detach().numpy()
