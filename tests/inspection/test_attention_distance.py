"""Attention of a whole model over many images."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_models import build_small, small_batch

from vitral.errors import RequestError
from vitral.inspection import attention_entropy, attention_maps, mean_attention_distance
from vitral.inspection.attention import pixels_per_patch
from vitral.inspection.attention_distance import ReachMeter, attention_reach
from vitral.models.build import create_model
from vitral.models.model import Model
from vitral.models.weights.load import load_model

Arrays = dict[str, np.ndarray]


def batches(model: Model, sizes: list[int]) -> list[torch.Tensor]:
    return list(small_batch(model, count=sum(sizes)).split(sizes))


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("family", ["ViT", "ViT map", "hybrid"])
def test_it_is_the_mean_over_all_images_however_they_are_batched(
    family: str, renormalize: bool
) -> None:
    model = build_small(family)
    found = attention_reach(model, batches(model, [2, 1]), renormalize=renormalize)
    assert found.num_images == 3
    assert found.layers == ("block00/attention", "block01/attention")
    layers = attention_maps(model, small_batch(model, count=3))
    distances = [
        mean_attention_distance(
            layer,
            grid=model.config.grid,
            patch_size=pixels_per_patch(model),
            num_prefix_tokens=model.num_prefix_tokens,
            renormalize=renormalize,
        )
        for layer in layers
    ]
    np.testing.assert_allclose(found.distances, torch.stack(distances).mean(dim=1), rtol=1e-5)
    entropies = torch.stack([attention_entropy(layer) for layer in layers]).mean(dim=1)
    np.testing.assert_allclose(found.entropies, entropies, rtol=1e-5)


@pytest.mark.parametrize("family", ["AxialViT gap", "AxialViT token", "AxialResNet"])
def test_axial_layers_are_two_along_rows_and_columns(family: str) -> None:
    model = build_small(family)
    found = attention_reach(model, batches(model, [2, 1]))
    assert len(found.layers) == 2 * len(attention_maps(model, small_batch(model)))
    assert found.distances.shape == (len(found.layers), 2)
    prefix = getattr(model, "num_prefix_tokens", 0)
    for name, distances in zip(found.layers, found.distances, strict=True):
        axis = 1 if name.endswith("row_attention") else 0
        side = model.config.image_hw[axis]
        assert (distances > 0).all()
        assert (distances < side).all()
    layer = attention_maps(model, small_batch(model, count=3))[0]
    pixels = 4 if family == "AxialResNet" else 8
    for name, distances in zip(found.layers[:2], found.distances[:2], strict=True):
        lines = layer.rows if name.endswith("row_attention") else layer.columns
        wanted = mean_attention_distance(
            lines.flatten(0, 1),
            grid=(1, lines.shape[-1] - prefix),
            patch_size=pixels,
            num_prefix_tokens=prefix,
        )
        np.testing.assert_allclose(distances, wanted.mean(dim=0), rtol=1e-5)


def test_places_of_an_axial_resnet_stand_for_the_pixels_of_their_stage() -> None:
    """At 44 pixels maps have sides of 11 and 5: places of 4 and 8 pixels, not 44 / 5."""
    model = build_small("AxialResNet", image_size=(44, 40), stages=(1, 2))
    meter = ReachMeter(model)
    even = {11: 4, 5: 8, 10: 4}
    for name, length in (
        ("stage1/unit01/column_attention", 11),
        ("stage2/unit02/row_attention", 5),
    ):
        attention = torch.full((1, 3, 2, length, length), 1 / length)
        distance, _ = meter._measure(name, attention)
        wanted = even[length] * (length**2 - 1) / (3 * length)
        torch.testing.assert_close(distance, torch.full((1, 2), wanted))


@pytest.mark.parametrize(
    ("name", "size", "pixels"),
    [
        ("ViT-L/16", 224, (16, 16)),
        ("ViT-B/32", (224, 320), (32, 32)),
        ("R50x1+ViT-L/16", 224, (16, 16)),
        ("R50x1+ViT-B/16", 384, (16, 16)),
        ("R26x1+ViT-S/32", 224, (32, 32)),
    ],
)
def test_a_token_of_a_hybrid_stands_for_as_many_pixels_as_the_paper_says(
    name: str, size: int | tuple[int, int], pixels: tuple[int, int]
) -> None:
    with torch.device("meta"):
        model = create_model(name, image_size=size)
    assert pixels_per_patch(model) == pixels


def test_no_image_is_told() -> None:
    with pytest.raises(RequestError, match="there is no image to look at attention on"):
        attention_reach(build_small("ViT"), [])


def test_a_convolutional_model_is_told() -> None:
    with pytest.raises(RequestError, match="convolutional network and has no attention"):
        attention_reach(build_small("BiT"), [])


def test_the_mean_over_a_batch_is_the_original_s(
    shared: Path, reference: Callable[[str], Arrays]
) -> None:
    model = load_model(shared / "reference" / "attention.weights.npz")
    images = torch.from_numpy(reference("attention.io")["image"]).permute(0, 3, 1, 2)
    found = attention_reach(model, [images])
    wanted = reference("attention.analysis")["attention_distance_unnormalised_batch_mean"]
    np.testing.assert_allclose(found.distances, wanted, atol=1e-3)


def random_attention(tokens: int, *, seed: int = 0) -> np.ndarray:
    shares = np.exp(np.random.default_rng(seed).normal(size=(2, 3, tokens, tokens)))
    return shares / shares.sum(axis=-1, keepdims=True)


def slow_distance(
    attention: np.ndarray, grid: tuple[int, int], patch: tuple[int, int], prefix: int
) -> np.ndarray:
    """The definition, patch by patch."""
    total = np.zeros(attention.shape[:2])
    for query in range(grid[0] * grid[1]):
        for key in range(grid[0] * grid[1]):
            down = (query // grid[1] - key // grid[1]) * patch[0]
            across = (query % grid[1] - key % grid[1]) * patch[1]
            total += attention[:, :, prefix + query, prefix + key] * np.hypot(down, across)
    return total / (grid[0] * grid[1])


@pytest.mark.parametrize("prefix", [0, 1, 4])
@pytest.mark.parametrize(("grid", "patch"), [((3, 3), (16, 16)), ((2, 5), (8, 12))])
def test_the_distance_is_the_definition(
    grid: tuple[int, int], patch: tuple[int, int], prefix: int
) -> None:
    attention = random_attention(prefix + grid[0] * grid[1])
    found = mean_attention_distance(
        attention, grid=grid, patch_size=patch, num_prefix_tokens=prefix
    )
    np.testing.assert_allclose(found, slow_distance(attention, grid, patch, prefix))


@pytest.mark.parametrize("renormalize", [False, True])
def test_attention_to_oneself_reaches_nowhere(renormalize: bool) -> None:
    identity = np.eye(7)[None, None]
    found = mean_attention_distance(identity, grid=(2, 3), patch_size=16, renormalize=renormalize)
    np.testing.assert_array_equal(found, [[0.0]])


def test_renormalised_attention_is_that_of_the_patches_alone() -> None:
    attention = random_attention(1 + 6)
    patches = attention[:, :, 1:, 1:]
    alone = patches / patches.sum(axis=-1, keepdims=True)
    found = mean_attention_distance(attention, grid=(2, 3), patch_size=16, renormalize=True)
    wanted = mean_attention_distance(alone, grid=(2, 3), patch_size=16, num_prefix_tokens=0)
    np.testing.assert_allclose(found, wanted)


def test_even_attention_on_a_line_has_a_closed_form() -> None:
    """The mean of |i - j| over n places is (n^2 - 1) / 3n."""
    even = np.full((1, 1, 8, 8), 1 / 8)
    found = mean_attention_distance(even, grid=(1, 8), patch_size=4, num_prefix_tokens=0)
    np.testing.assert_allclose(found, [[4 * 63 / 24]])


def test_an_image_turned_on_its_side_has_the_same_distance() -> None:
    grid, attention = (2, 3), random_attention(1 + 6)
    order = np.concatenate([[0], 1 + np.arange(6).reshape(grid).T.ravel()])
    transposed = attention[:, :, order][:, :, :, order]
    np.testing.assert_allclose(
        mean_attention_distance(attention, grid=grid, patch_size=(16, 8)),
        mean_attention_distance(transposed, grid=grid[::-1], patch_size=(8, 16)),
    )


def test_a_patch_that_looks_at_the_class_token_alone_reaches_nowhere() -> None:
    attention = np.zeros((1, 1, 5, 5))
    attention[..., 0] = 1
    for renormalize in (False, True):
        found = mean_attention_distance(
            attention, grid=(2, 2), patch_size=16, renormalize=renormalize
        )
        np.testing.assert_array_equal(found, [[0.0]])


def test_the_distance_is_the_original_s(reference: Callable[[str], Arrays]) -> None:
    wanted = reference("attention.analysis")
    for renormalize, kind in ((False, "unnormalised"), (True, "renormalised")):
        found = [
            mean_attention_distance(
                layer,
                grid=tuple(wanted["grid"]),
                patch_size=tuple(wanted["patch_pixels"].tolist()),
                renormalize=renormalize,
            )
            for layer in wanted["attention_weights"]
        ]
        np.testing.assert_allclose(found, wanted[f"attention_distance_{kind}"], atol=1e-3)


@pytest.mark.parametrize(
    ("grid", "prefix"), [((3, 3), 1), ((2, 3), 2)], ids=["another grid", "a register forgotten"]
)
def test_tokens_that_do_not_fit_the_grid_are_told(grid: tuple[int, int], prefix: int) -> None:
    words = f"attention over 7 tokens does not fit the {grid[0] * grid[1] + prefix} of grid and"
    with pytest.raises(RequestError, match=re.escape(words)):
        mean_attention_distance(
            random_attention(7), grid=grid, patch_size=16, num_prefix_tokens=prefix
        )


def test_even_attention_is_spread_over_all_tokens() -> None:
    np.testing.assert_allclose(attention_entropy(np.full((2, 3, 5, 5), 0.2)), np.log(5))


def test_attention_to_one_token_is_not_spread() -> None:
    np.testing.assert_array_equal(attention_entropy(np.eye(5)[None, None]), [[0.0]])


def test_it_is_the_mean_over_the_tokens_that_look() -> None:
    attention = np.eye(4)[None, None].copy()
    attention[0, 0, 0] = [0.5, 0.5, 0, 0]
    np.testing.assert_allclose(attention_entropy(attention), [[np.log(2) / 4]])
