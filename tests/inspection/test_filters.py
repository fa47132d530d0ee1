"""Principal components of the filters that see the image."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import FAMILIES, build_small

from vitral.errors import RequestError
from vitral.inspection import embedding_filters, principal_filters
from vitral.models.weights.load import load_model

Arrays = dict[str, np.ndarray]


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("family", FAMILIES)
def test_components_are_orthonormal_filters_over_the_image(family: str, channels: int) -> None:
    model = build_small(family, in_channels=channels)
    found = embedding_filters(model, components=4)
    side = 7 if family in ("hybrid", "BiT", "ResNet v1", "AxialResNet") else 8
    assert found.shape == (4, side, side, channels)
    flat = found.reshape(4, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(4), atol=1e-5)


def test_there_are_no_more_components_than_filters() -> None:
    assert len(embedding_filters(build_small("ViT"), components=28)) == 16


def test_the_components_are_what_the_filters_are_made_of() -> None:
    """Filters that are sums of two patterns give those two, and nothing else."""
    generator = np.random.default_rng(0)
    patterns = np.linalg.qr(generator.normal(size=(3 * 4 * 5, 2)))[0].T
    weights = generator.normal(size=(40, 2)) * [3.0, 1.0]
    weights -= weights.mean(axis=0)
    filters = torch.from_numpy((weights @ patterns).reshape(40, 3, 4, 5))
    found = principal_filters(filters, components=3)
    assert found.shares[:2].sum() == pytest.approx(1)
    assert found.singular_values[2] == pytest.approx(0, abs=1e-9)
    spanned = found.components[:2].transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_allclose(
        np.linalg.norm(spanned @ patterns.T, axis=1), 1, atol=1e-5
    )  # each lies in the plane of the two


def test_the_components_are_the_original_s(
    shared: Path, reference: Callable[[str], Arrays]
) -> None:
    wanted = reference("attention.analysis")
    model = load_model(shared / "reference" / "attention.weights.npz")
    for centred, kind in ((True, "centred"), (False, "uncentred")):
        found = principal_filters(model.embedding.weight.detach(), centred=centred)
        np.testing.assert_allclose(found.components, wanted[f"pca_{kind}_components"], atol=2e-3)
        strong = found.singular_values[:60]
        np.testing.assert_allclose(strong, wanted[f"pca_{kind}_singular_values"][:60], rtol=1e-5)
        shares = wanted[f"pca_{kind}_explained_variance_ratio"]
        np.testing.assert_allclose(found.shares, shares, atol=1e-6)
        np.testing.assert_allclose(found.mean, wanted["pca_mean_filter"], atol=1e-6)
        components = embedding_filters(model, centred=centred)
        np.testing.assert_array_equal(components, found.components)


def test_no_component_is_nothing_to_draw() -> None:
    with pytest.raises(RequestError, match="components=0 must be 1 or more"):
        embedding_filters(build_small("ViT"), components=0)
