"""Colours and similarity of patches' features."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from vitral.errors import RequestError
from vitral.inspection import feature_colors, patch_similarity


def random_tokens(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, 6, 8))


def test_colours_are_the_first_components_spread_to_their_range() -> None:
    tokens = random_tokens()
    colors = feature_colors(tokens, grid=(2, 3))
    assert colors.shape == (2, 2, 3, 3)
    flat = tokens.reshape(12, 8)
    flat = flat - flat.mean(axis=0)
    values, axes = np.linalg.eigh(flat.T @ flat)
    for number in range(3):
        part = flat @ axes[:, np.argsort(-values)[number]]
        spread = (part - part.min()) / (part.max() - part.min())
        found = colors[..., number].ravel()
        difference = np.minimum(np.abs(found - spread).max(), np.abs(1 - found - spread).max())
        assert difference < 1e-9


def test_equal_features_have_equal_colours_in_all_images() -> None:
    tokens = random_tokens()
    tokens[1, 4] = tokens[0, 2]
    colors = feature_colors(tokens, grid=(2, 3))
    np.testing.assert_allclose(colors[1, 1, 1], colors[0, 0, 2])


def test_what_does_not_vary_is_grey() -> None:
    np.testing.assert_array_equal(feature_colors(np.ones((1, 6, 8)), grid=(2, 3)), 0.5)
    along_one = np.arange(6.0)[None, :, None] * np.ones(8)
    colors = feature_colors(along_one, grid=(2, 3))
    np.testing.assert_allclose(np.sort(colors[..., 0].ravel()), np.linspace(0, 1, 6), atol=1e-12)
    np.testing.assert_array_equal(colors[..., 1:], 0.5)


def test_few_dimensions_leave_colours_grey() -> None:
    colors = feature_colors(torch.randn(1, 6, 2), grid=(2, 3))
    assert (colors[..., 2] == 0.5).all()


def test_similarity_is_the_cosine_on_the_grid() -> None:
    tokens = random_tokens()
    alike = patch_similarity(tokens, grid=(2, 3))
    assert alike.shape == (2, 2, 3, 2, 3)
    one, other = tokens[1, 4], tokens[1, 2]  # row 1, column 1; row 0, column 2
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    np.testing.assert_allclose(alike[1, 1, 1, 0, 2], cosine)
    self_similarity = np.einsum("nrcrc->nrc", alike)
    np.testing.assert_allclose(self_similarity, 1)


@pytest.mark.parametrize("measure", [feature_colors, patch_similarity])
def test_tokens_with_their_prefix_are_told(measure: Callable[..., np.ndarray]) -> None:
    words = "tokens of shape (1, 7, 8) do not fit 2 x 3 patches: give (N, 6, D), without the prefix"
    with pytest.raises(RequestError, match=re.escape(words)):
        measure(np.zeros((1, 7, 8)), grid=(2, 3))
