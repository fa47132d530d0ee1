import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from support.frozen_features import overlapping_classes

from vitral.errors import RequestError
from vitral.evaluate.logistic_regression import fit_logistic_regression


def loss(
    features: np.ndarray, labels: np.ndarray, head: tuple[np.ndarray, np.ndarray], l2: float
) -> float:
    logits = features.astype(np.float64) @ head[0] + head[1]
    top = logits.max(axis=1, keepdims=True)
    log_sums = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    penalty = l2 / (2 * len(labels)) * np.square(head[0], dtype=np.float64).sum()
    return (log_sums - logits[np.arange(len(labels)), labels]).mean() + penalty


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("l2", [0.1, 2.0, 100.0])
@pytest.mark.parametrize(("count", "width"), [(200, 6), (40, 60)])
def test_logistic_regression_equals_scikit_learns(
    count: int, width: int, l2: float, kind: type[np.floating]
) -> None:
    features, labels, test, _ = overlapping_classes(train=count, width=width)
    deviations = features.std(axis=0)
    features, test = (features / deviations).astype(kind), (test / deviations).astype(kind)
    head = fit_logistic_regression(features, labels, num_classes=3, l2=l2)
    wide = features.astype(np.float64)
    oracle = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=5000).fit(wide, labels)
    best = loss(features, labels, (oracle.coef_.T, oracle.intercept_), l2)
    assert loss(features, labels, head, l2) == pytest.approx(best, rel=1e-5)
    np.testing.assert_allclose(head[0].T, oracle.coef_, atol=5e-3)
    ours, theirs = head[1] - head[1].mean(), oracle.intercept_ - oracle.intercept_.mean()
    np.testing.assert_allclose(ours, theirs, atol=5e-3)
    assert (test @ head[0] + head[1]).argmax(axis=1).tolist() == oracle.predict(test).tolist()
    assert head[0].dtype == kind


def test_nothing_to_fit_is_an_error() -> None:
    with pytest.raises(RequestError, match="logistic regression has no examples to fit"):
        fit_logistic_regression(np.zeros((0, 3)), np.zeros(0, int), num_classes=2, l2=1.0)
