"""Attention of a whole model over many images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import build_small, small_batch

from vitral.errors import RequestError
from vitral.inspection import attention_entropy, attention_maps, mean_attention_distance
from vitral.inspection.attention import pixels_per_patch
from vitral.inspection.reach import ReachMeter, attention_reach
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
    for name, places in (
        ("stage1/unit01/column_attention", 11),
        ("stage2/unit02/row_attention", 5),
    ):
        attention = torch.full((1, 3, 2, places, places), 1 / places)
        distance, _ = meter._measure(name, attention)
        wanted = even[places] * (places**2 - 1) / (3 * places)
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
