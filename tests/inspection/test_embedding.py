"""Principal components of the filters that see the image."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_models import FAMILIES, build_small

from vitral.errors import RequestError
from vitral.inspection import embedding_filters, position_similarity, principal_filters
from vitral.models.build import create_model
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


KINDS = {
    "1d": {},
    "1d, registers": {"num_registers": 2},
    "1d, no class token": {"pool": "gap"},
    "2d": {"position": "2d"},
    "waves": {"position": "sincos2d"},
    "relative": {"position": "relative"},
    "relative, a table a head": {"position": "relative", "relative_per_head": True},
    "shared": {"position_at": "shared"},
}


@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_a_place_is_like_itself_on_every_grid(fields: dict[str, object]) -> None:
    alike = position_similarity(build_small("ViT", **fields))
    assert alike.shape == (3, 4, 3, 4)
    np.testing.assert_allclose(np.einsum("rcrc->rc", alike), 1, atol=1e-6)
    assert np.abs(alike).max() <= 1 + 1e-6


def test_it_is_the_cosine_of_the_table_without_the_class_token() -> None:
    model = build_small("ViT")
    table = model.positions[0].table[0].detach().numpy()
    one, other = table[1 + 1 * 4 + 2], table[1 + 2 * 4 + 0]
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert position_similarity(model)[1, 2, 2, 0] == pytest.approx(cosine, abs=1e-6)


def test_rows_and_columns_of_a_2d_table_are_alike_along_their_lines() -> None:
    """Two places of a row share half of their vectors, those of other rows and columns nothing."""
    model = build_small("ViT", position="2d", embed_dim=64, image_size=(64, 96))
    alike = position_similarity(model)
    row, column = alike[3, 5, 3], alike[3, 5, :, 5]
    elsewhere = np.delete(np.delete(alike[3, 5], 3, axis=0), 5, axis=1)
    assert min(row.min(), column.min()) > 0.2
    assert abs(elsewhere.mean()) < 0.15


def test_each_block_s_own_table_can_be_asked_for() -> None:
    model = build_small("ViT", position_at="every")
    assert not np.allclose(position_similarity(model), position_similarity(model, block=1))


def test_offsets_are_compared_with_no_offset() -> None:
    model = build_small("ViT", position="relative", position_at="shared")
    keys = model.positions[0].offsets[0].detach().numpy()
    query, key = 1 * 4 + 2, 2 * 4 + 0
    one, none = keys[query - key + 11], keys[11]
    cosine = one @ none / np.linalg.norm(one) / np.linalg.norm(none)
    assert position_similarity(model)[1, 2, 2, 0] == pytest.approx(cosine, abs=1e-6)


def test_waves_are_the_more_alike_the_nearer_places_are() -> None:
    model = create_model("ViT-Mi/4", image_size=32, position="sincos2d")
    alike = position_similarity(model)[4, 4]
    assert alike[4, 5] > alike[4, 6] > alike[4, 7]
    assert alike[5, 4] > alike[6, 4] > alike[7, 4]


def test_the_similarity_is_the_original_s(shared: Path, reference: Callable[[str], Arrays]) -> None:
    model = load_model(shared / "reference" / "attention.weights.npz")
    wanted = reference("attention.analysis")["posemb_cosine"]
    np.testing.assert_allclose(position_similarity(model), wanted, atol=1e-5)


def test_an_interpolated_table_keeps_its_structure(shared: Path) -> None:
    """The official code resizes the table bilinearly, corner on corner."""
    path = shared / "reference" / "attention.weights.npz"
    table = load_model(path).positions[0].table.detach()[:, 1:].unflatten(1, (4, 4))
    resized = torch.nn.functional.interpolate(
        table.permute(0, 3, 1, 2), size=(6, 3), mode="bilinear", align_corners=True
    )
    vectors = resized[0].flatten(1).T
    wanted = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
    alike = position_similarity(load_model(path, image_size=(96, 48)))
    np.testing.assert_allclose(alike, wanted.reshape(6, 3, 6, 3), atol=1e-5)


@pytest.mark.parametrize(
    ("family", "asked", "words"),
    [
        ("BiT", {}, "small has no position embeddings"),
        ("ViT none", {}, "small has no position embeddings"),
        ("ViT", {"block": 1}, "there is no table 1: small has 1, from 0 on"),
    ],
)
def test_positions_that_are_not_there_are_told(
    family: str, asked: dict[str, int], words: str
) -> None:
    name, _, position = family.partition(" ")
    model = build_small(name, **({"position": position} if position else {}))
    with pytest.raises(RequestError, match=words):
        position_similarity(model, **asked)
