import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitral.evaluate import arrays
from vitral.evaluate.axes import Standard, moments, principal_axes, smaller_gram


def some_rows(count: int, width: int, rank: int) -> np.ndarray:
    generator = np.random.default_rng(count + 31 * width + 97 * rank)
    return generator.normal(size=(count, rank)) @ generator.normal(size=(rank, width))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
def test_the_axes_rebuild_the_products_of_the_features(count: int, width: int, rank: int) -> None:
    features = some_rows(count, width, rank) + 5
    mean, std = moments(torch.from_numpy(features))
    standard = Standard(mean, std + 1e-5)
    axes, squares = (part.numpy() for part in principal_axes(torch.from_numpy(features), standard))
    rows = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-5)
    np.testing.assert_allclose(axes * squares @ axes.T, rows.T @ rows, atol=1e-8 * (1 + count))
    np.testing.assert_allclose(axes.T @ axes, np.eye(len(squares)), atol=1e-6)
    assert len(squares) <= min(count - 1, width, rank)


def test_moments_and_products_equal_numpys_however_rows_are_divided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrays, "_VALUES_AT_ONCE", 20)
    features = some_rows(23, 5, 5) + 1e3
    mean, std = moments(torch.from_numpy(features))
    np.testing.assert_allclose(mean, features.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, features.std(axis=0), rtol=1e-10)
    gram = smaller_gram(torch.from_numpy(features), Standard(mean, std))
    rows = (features - features.mean(axis=0)) / features.std(axis=0)
    np.testing.assert_allclose(gram, rows.T @ rows, atol=1e-8)


def test_features_that_do_not_vary_have_no_axes() -> None:
    constant = torch.full((4, 3), 0.1)
    mean, std = moments(constant)
    axes, squares = principal_axes(constant, Standard(mean, std + 1e-5))
    assert axes.shape == (3, 0)
    assert squares.shape == (0,)
