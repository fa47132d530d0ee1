"""The attention of layers and heads that are asked for."""

import re

import numpy as np
import pytest
import torch
from support.small_models import FAMILIES, build_small, small_batch

from vitral.errors import RequestError
from vitral.inspection import attention_maps, full_attention
from vitral.models.layers import Attention

FULL = ["ViT", "ViT map", "hybrid"]
AXIAL = ["AxialViT gap", "AxialViT token", "AxialResNet"]
KINDS = {
    "registers": {"num_registers": 3},
    "relative": {"position": "relative"},
    "relative, a table a head": {"position": "relative", "relative_per_head": True},
    "normed queries and keys": {"qk_norm": True},
}


@pytest.mark.parametrize("family", [*FULL, *AXIAL])
def test_attention_is_that_of_the_trace(family: str) -> None:
    model = build_small(family)
    images = small_batch(model)
    names = [name for name in model.trace_names if name.endswith("attention")]
    traced = [v for n, v in model.trace(images, names).items() if not n.startswith("pool/")]
    found: list[torch.Tensor] = []
    for layer in attention_maps(model, images):
        parts = [layer] if isinstance(layer, torch.Tensor) else [layer.rows, layer.columns]
        found += parts[::-1] if family == "AxialResNet" else parts  # its columns come first
    assert len(found) == len(traced) > 0
    for attention, wanted in zip(found, traced, strict=True):
        torch.testing.assert_close(attention, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_a_head_asked_for_alone_is_the_one_among_all(fields: dict[str, object]) -> None:
    model = build_small("ViT", **fields)
    images = small_batch(model)
    first, last = attention_maps(model, images, layers=[0, -1])
    (alone,) = attention_maps(model, images, layers=[1], heads=[-1])
    assert alone.shape == (2, 1, *first.shape[2:])
    torch.testing.assert_close(alone, last[:, 1:])
    assert not torch.allclose(last[:, :1], last[:, 1:])


@pytest.mark.parametrize("family", AXIAL)
def test_axial_heads_asked_for_are_those_among_all(family: str) -> None:
    model = build_small(family)
    images = small_batch(model)
    everything = attention_maps(model, images)[-1]
    (alone,) = attention_maps(model, images, layers=[-1], heads=[1])
    torch.testing.assert_close(alone.rows, everything.rows[:, :, 1:])
    torch.testing.assert_close(alone.columns, everything.columns[:, :, 1:])


def test_layers_come_in_the_order_that_is_asked_for() -> None:
    model = build_small("ViT map", depth=3)
    images = small_batch(model)
    first, second, third = attention_maps(model, images)
    probe, last, again, once_more = attention_maps(model, images, layers=["pool", 2, -3, 2])
    torch.testing.assert_close(last, third)
    torch.testing.assert_close(once_more, third)
    torch.testing.assert_close(again, first)
    assert not torch.allclose(first, second)
    assert probe.shape == (2, 2, 1, 12)
    torch.testing.assert_close(probe.sum(dim=-1), torch.ones(2, 2, 1))


def test_numbers_of_numpy_are_numbers() -> None:
    model = build_small("ViT")
    images = small_batch(model)
    found = attention_maps(model, images, layers=np.arange(2), heads=np.arange(1))
    torch.testing.assert_close(found, attention_maps(model, images, heads=[0]))


def test_only_what_is_asked_for_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_small("ViT", depth=3)
    calls = []
    weights = Attention.weights

    def counted(self: Attention, *inputs: object) -> torch.Tensor:
        found = weights(self, *inputs)
        calls.append(tuple(found.shape))
        return found

    monkeypatch.setattr(Attention, "weights", counted)
    attention_maps(model, small_batch(model), layers=[1], heads=[0])
    assert calls == [(2, 1, 13, 13)]


def test_attention_needs_no_gradient() -> None:
    model = build_small("ViT")
    assert not any(found.requires_grad for found in attention_maps(model, small_batch(model)))


@pytest.mark.parametrize(
    ("family", "asked", "words"),
    [
        ("BiT", {}, "small is a convolutional network and has no attention"),
        ("ViT", {"layers": [2]}, "there is no layer 2: small has 2 that attend, 0 to 1 "
         "(from the end -1 to -2)"),
        ("ViT map", {"layers": [-3]}, "there is no layer -3: small has 2 that attend, 0 to 1 "
         "(from the end -1 to -2), or 'pool'"),
        ("ViT", {"layers": ["pool"]}, "small does not pool by attention: leave 'pool' out"),
        ("ViT", {"layers": ["block01"]}, "there is no layer 'block01'"),
        ("AxialResNet", {"layers": [3]}, "there is no layer 3: small has 3 that attend"),
        ("ViT", {"heads": [2]}, "there is no head 2: small has 2 a layer, 0 to 1"),
        ("AxialResNet", {"heads": [-3]}, "there is no head -3: small has 2 a layer"),
    ],
)  # fmt: skip
def test_what_a_model_does_not_have_is_told(
    family: str, asked: dict[str, list[int]], words: str
) -> None:
    model = build_small(family)
    with pytest.raises(RequestError, match=re.escape(words)):
        attention_maps(model, small_batch(model), **asked)


@pytest.mark.parametrize("family", ["AxialViT gap", "AxialViT token"])
def test_axial_attention_over_all_tokens_does_what_the_lines_do(family: str) -> None:
    """Values mixed line by line, as the block mixes them, equal those mixed by the full matrix."""
    model = build_small(family)
    grid, prefix = model.config.grid, model.num_prefix_tokens
    (block,) = attention_maps(model, small_batch(model), layers=[0])
    values = torch.randn(2, prefix + 12, 5, generator=torch.Generator().manual_seed(1))
    for axis, lines in (("rows", block.rows), ("columns", block.columns)):
        patch_values = values[:, prefix:].unflatten(1, grid)
        patch_values = patch_values if axis == "rows" else patch_values.transpose(1, 2)
        first = values[:, None, :prefix].expand(-1, patch_values.shape[1], -1, -1)
        mixed = lines @ torch.cat([first, patch_values], dim=2)[:, :, None]
        patches = mixed[..., prefix:, :].transpose(1, 2)
        patches = patches if axis == "rows" else patches.transpose(2, 3)
        wanted = torch.cat([mixed[..., :prefix, :].mean(dim=1), patches.flatten(2, 3)], dim=2)
        full = full_attention(lines, grid=grid, axis=axis, num_prefix_tokens=prefix)
        torch.testing.assert_close(full @ values[:, None], wanted)
        torch.testing.assert_close(full.sum(dim=-1), torch.ones(2, 2, prefix + 12))


def test_lines_that_do_not_fit_the_grid_are_told() -> None:
    with pytest.raises(RequestError, match="attention along rows of shape .* 3 x 4 with 1 prefix"):
        full_attention(torch.ones(1, 3, 2, 4, 4), grid=(3, 4), axis="rows", num_prefix_tokens=1)


def test_small_models_of_all_families_are_tried() -> None:
    assert set(FULL + AXIAL) | {"BiT", "ResNet v1", "AxialViT map"} == set(FAMILIES)
