import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vitral.models.build import create_model
from vitral.models.position import (
    PositionEmbedding,
    PositionEmbedding2d,
    RelativePosition,
    WavePosition,
    wave_table,
)
from vitral.models.vit import ViT
from vitral.spec.vit import ViTConfig

Build = Callable[..., ViT]
PREFIXES: list[dict[str, Any]] = [
    {"class_token": True}, {"class_token": False, "pool": "gap"},
    {"class_token": True, "num_registers": 2}, {"pool": "gap", "num_registers": 1},
]  # fmt: skip


def small_config(**fields: Any) -> ViTConfig:
    return ViTConfig(
        **{
            "name": "x", "image_size": (4, 6), "patch_size": 2, "embed_dim": 8, "depth": 1,
            "num_heads": 2, "mlp_dim": 4,
        }
        | fields
    )  # fmt: skip


@pytest.mark.parametrize("fields", PREFIXES, ids=str)
@torch.no_grad()
def test_a_row_of_the_table_is_added_to_each_token_but_registers(fields: dict[str, Any]) -> None:
    config = small_config(**fields)
    position = PositionEmbedding(config)
    position.init_weights()
    first = int(bool(config.class_token))
    assert position.table.shape == (1, 6 + first, 8)
    tokens = torch.randn(2, config.num_prefix_tokens + 6, 8)
    added = position(tokens) - tokens
    expected = position.table.expand(2, -1, -1)
    torch.testing.assert_close(added[:, :first], expected[:, :first])
    torch.testing.assert_close(added[:, -6:], expected[:, -6:])
    assert not added[:, first : config.num_prefix_tokens].any()


@pytest.mark.parametrize("fields", PREFIXES, ids=str)
@torch.no_grad()
def test_two_tables_stand_side_by_side_the_columns_first(fields: dict[str, Any]) -> None:
    config = small_config(**fields)
    position = PositionEmbedding2d(config)
    position.init_weights()
    assert (position.columns.shape, position.rows.shape) == ((1, 3, 4), (1, 2, 4))
    tokens = torch.zeros(2, config.num_prefix_tokens + 6, 8)
    added = position(tokens)[0]
    for row in range(2):
        for column in range(3):
            place = added[config.num_prefix_tokens + 3 * row + column]
            assert torch.equal(place[:4], position.columns[0, column])
            assert torch.equal(place[4:], position.rows[0, row])
    first = int(bool(config.class_token))
    own = [position.class_place[0, 0]] if first else []
    assert [torch.equal(a, b) for a, b in zip(added[:first], own, strict=True)] == [True] * first
    assert not added[first : config.num_prefix_tokens].any()


@pytest.mark.parametrize("fields", PREFIXES, ids=str)
def test_waves_are_added_to_patches_alone(fields: dict[str, Any]) -> None:
    config = small_config(**fields)
    position = WavePosition(config)
    assert list(position.parameters()) == []
    assert position.state_dict() == {}
    added = position(torch.zeros(1, config.num_prefix_tokens + 6, 8))
    assert not added[:, : config.num_prefix_tokens].any()
    assert torch.equal(added[:, -6:], wave_table((2, 3), 8))


def test_waves_are_sines_and_cosines_of_column_then_row() -> None:
    rows, columns, width = 3, 5, 24
    table = wave_table((rows, columns), width)[0].view(rows, columns, width)
    quarter = width // 4
    for row in range(rows):
        for column in range(columns):
            for index in range(quarter):
                frequency = 10_000 ** (-index / (quarter - 1))
                expected = [
                    wave(place * frequency)
                    for place in (column, row)
                    for wave in (math.sin, math.cos)
                ]
                found = table[row, column, index::quarter].tolist()
                assert found == pytest.approx(expected, abs=1e-6)


def test_one_wave_has_a_frequency_of_one() -> None:
    expected = [[math.sin(x), math.cos(x), 0.0, 1.0] for x in range(2)]
    assert np.allclose(wave_table((1, 2), 4)[0].numpy(), expected, atol=1e-6)


def test_a_model_built_without_memory_has_its_waves() -> None:
    with torch.device("meta"):
        model = ViT(small_config(position="sincos2d"))
    assert torch.equal(model.positions[0].places, wave_table((2, 3), 8))


def plain_relative(
    query: Tensor, key: Tensor, offsets: Tensor, *, prefix: int, tables: int
) -> Tensor:
    """Attend with keys for offsets (Shaw et al., equation 4), place by place in float64."""
    num, heads, length, dim = query.shape
    places = length - prefix
    scores = torch.zeros(num, heads, length, length, dtype=torch.float64)
    for head in range(heads):
        table = offsets[head % tables]
        for i in range(length):
            for j in range(length):
                asked = key[:, head, j].clone()
                if i >= prefix and j >= prefix:
                    asked += table[(i - j) + places - 1]
                scores[:, head, i, j] = (query[:, head, i] * asked).sum(-1) / math.sqrt(dim)
    return scores.softmax(-1)


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize(
    "fields", [{}, {"pool": "gap"}, {"num_registers": 2}, {"pool": "map", "num_registers": 1}],
    ids=str,
)  # fmt: skip
@torch.no_grad()
def test_offsets_add_their_keys_to_those_of_patches(
    small_model: Build, small_images: Tensor, fields: dict[str, Any], per_head: bool
) -> None:
    model = small_model(position="relative", relative_per_head=per_head, depth=2, **fields)
    assert model.positions[0].offsets.shape == (1 + per_head, 23, 8)
    block = model.blocks[0]
    patches = model.embed(small_images)
    tokens = model._assemble(patches)
    projected = block.attention.qkv(block.norm1(tokens)).double()
    query, key, value = projected.unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    attention = plain_relative(
        query, key, model.positions[0].offsets.double(),
        prefix=model.num_prefix_tokens, tables=1 + per_head,
    )  # fmt: skip
    traced = model.trace(small_images, ["block00/attention"])["block00/attention"]
    torch.testing.assert_close(traced.double(), attention, atol=1e-6, rtol=1e-4)
    mixed = (attention @ value).transpose(1, 2).flatten(2).float()
    computed = block.attention(block.norm1(tokens), model.positions[0])
    torch.testing.assert_close(computed, block.attention.out(mixed), atol=1e-5, rtol=1e-4)


def test_nothing_is_added_for_prefix_tokens() -> None:
    position = RelativePosition(small_config(position="relative", num_registers=2))
    position.init_weights()
    bias = position(torch.randn(2, 2, 9, 4))
    assert bias.shape == (2, 2, 9, 9)
    assert not bias[:, :, :3].any()
    assert not bias[:, :, :, :3].any()
    assert (bias[:, :, 3:, 3:] != 0).all()


@pytest.mark.parametrize("kind", [PositionEmbedding, PositionEmbedding2d, RelativePosition])
def test_every_table_starts_normal_with_deviation_002(kind: type[Any]) -> None:
    torch.manual_seed(0)
    position = kind(small_config(image_size=(80, 60), embed_dim=32))
    position.init_weights()
    values = torch.cat([parameter.flatten() for parameter in position.parameters()])
    assert values.std().item() == pytest.approx(0.02, rel=0.05)
    assert values.mean().abs() < 0.002


def test_a_model_that_is_given_memory_later_computes_its_waves() -> None:
    fields: dict[str, Any] = {"position": "sincos2d", "image_size": 32, "num_classes": 2}
    expected = create_model("ViT-Mi/8", **fields).positions[0].places
    with torch.device("meta"):
        model = create_model("ViT-Mi/8", **fields)
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(float("nan"))
    model.init_weights()
    assert torch.equal(model.positions[0].places, expected)
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
