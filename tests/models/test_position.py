import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import zoom
from torch import Tensor

from vitral.config.vit import RESIZES, ViTConfig
from vitral.errors import RequestError
from vitral.models.build import create_model
from vitral.models.position import (
    PositionEmbedding,
    PositionEmbedding2d,
    RelativePosition,
    SinCosPosition,
    resize_axis_table,
    resize_offset_table,
    resize_position_table,
    sincos_table,
)
from vitral.models.vit import ViT

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
            vector = added[config.num_prefix_tokens + 3 * row + column]
            assert torch.equal(vector[:4], position.columns[0, column])
            assert torch.equal(vector[4:], position.rows[0, row])
    first = int(bool(config.class_token))
    cls = [position.class_place[0, 0]] if first else []
    assert [torch.equal(a, b) for a, b in zip(added[:first], cls, strict=True)] == [True] * first
    assert not added[first : config.num_prefix_tokens].any()


@pytest.mark.parametrize("fields", PREFIXES, ids=str)
def test_waves_are_added_to_patches_alone(fields: dict[str, Any]) -> None:
    config = small_config(**fields)
    position = SinCosPosition(config)
    assert list(position.parameters()) == []
    assert position.state_dict() == {}
    added = position(torch.zeros(1, config.num_prefix_tokens + 6, 8))
    assert not added[:, : config.num_prefix_tokens].any()
    assert torch.equal(added[:, -6:], sincos_table((2, 3), 8))


def test_waves_are_sines_and_cosines_of_column_then_row() -> None:
    rows, columns, width = 3, 5, 24
    table = sincos_table((rows, columns), width)[0].view(rows, columns, width)
    quarter = width // 4
    for row in range(rows):
        for column in range(columns):
            for index in range(quarter):
                frequency = 10_000 ** (-index / (quarter - 1))
                expected = [
                    function(coordinate * frequency)
                    for coordinate in (column, row)
                    for function in (math.sin, math.cos)
                ]
                found = table[row, column, index::quarter].tolist()
                assert found == pytest.approx(expected, abs=1e-6)


def test_one_wave_has_a_frequency_of_one() -> None:
    expected = [[math.sin(x), math.cos(x), 0.0, 1.0] for x in range(2)]
    assert np.allclose(sincos_table((1, 2), 4)[0].numpy(), expected, atol=1e-6)


def test_a_model_built_without_memory_has_its_waves() -> None:
    with torch.device("meta"):
        model = ViT(small_config(position="sincos2d"))
    assert torch.equal(model.positions[0].places, sincos_table((2, 3), 8))


def plain_relative(
    query: Tensor, key: Tensor, offsets: Tensor, *, prefix: int, tables: int
) -> Tensor:
    """Attend with keys for offsets (Shaw et al., equation 4), one position at a time in float64."""
    num, heads, length, dim = query.shape
    num_positions = length - prefix
    scores = torch.zeros(num, heads, length, length, dtype=torch.float64)
    for head in range(heads):
        table = offsets[head % tables]
        for i in range(length):
            for j in range(length):
                shifted_key = key[:, head, j].clone()
                if i >= prefix and j >= prefix:
                    shifted_key += table[(i - j) + num_positions - 1]
                scores[:, head, i, j] = (query[:, head, i] * shifted_key).sum(-1) / math.sqrt(dim)
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


Grid = tuple[int, int]
Reference = Callable[[str], dict[str, np.ndarray]]
OFFICIAL = "vit_jax_interpolate_posembed"
CASES = [
    ("4x4_to_6x6_cls", OFFICIAL, (4, 4), (6, 6), 1),
    ("4x4_to_6x6_nocls", OFFICIAL, (4, 4), (6, 6), 0),
    ("4x4_to_6x6_nocls", "big_vision_resample_posemb", (4, 4), (6, 6), 0),
    ("7x7_to_12x12_cls", OFFICIAL, (7, 7), (12, 12), 1),
    ("14x14_to_24x24_cls", OFFICIAL, (14, 14), (24, 24), 1),
    ("4x4_to_3x5_cls", "scipy_zoom_nonsquare_extension", (4, 4), (3, 5), 1),
    ("4x4_to_4x7_nocls", "scipy_zoom_nonsquare_extension", (4, 4), (4, 7), 0),
]


@pytest.mark.parametrize(("case", "result", "old_grid", "new_grid", "prefix"), CASES)
def test_resizing_agrees_with_the_original_code(
    reference: Reference, case: str, result: str, old_grid: Grid, new_grid: Grid, prefix: int
) -> None:
    arrays = reference("posemb_interpolation")
    resized = resize_position_table(
        torch.from_numpy(arrays[f"{case}/old"]),
        old_grid=old_grid,
        new_grid=new_grid,
        num_prefix_tokens=prefix,
    )
    expected = arrays[f"{case}/{result}"]
    assert resized.shape == expected.shape
    np.testing.assert_allclose(resized.numpy(), expected, atol=1e-6, rtol=0)


sides = st.integers(1, 9)
grids = st.tuples(sides, sides)


# From one row or column on, scipy's zoom has no corners to align; so the old grid has two.
@given(
    old_grid=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    new_grid=st.tuples(st.integers(2, 12), st.integers(2, 12)),
)
@settings(max_examples=40, deadline=None)
def test_resizing_equals_scipy_s_zoom_for_any_grids(old_grid: Grid, new_grid: Grid) -> None:
    table = np.random.default_rng(0).normal(size=(1, old_grid[0] * old_grid[1], 3))
    factors = (new_grid[0] / old_grid[0], new_grid[1] / old_grid[1], 1)
    expected = zoom(table.reshape(*old_grid, 3), factors, order=1)
    resized = resize_position_table(
        torch.from_numpy(table), old_grid=old_grid, new_grid=new_grid, num_prefix_tokens=0
    )
    np.testing.assert_allclose(resized[0].numpy(), expected.reshape(-1, 3), atol=1e-9, rtol=0)


@given(old_grid=grids, new_grid=grids, prefix=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_resizing_keeps_prefix_rows_and_a_constant_table(
    old_grid: Grid, new_grid: Grid, prefix: int
) -> None:
    prefix_rows = torch.randn(1, prefix, 2)
    table = torch.cat([prefix_rows, torch.full((1, old_grid[0] * old_grid[1], 2), 0.75)], dim=1)
    resized = resize_position_table(
        table, old_grid=old_grid, new_grid=new_grid, num_prefix_tokens=prefix
    )
    assert torch.equal(resized[:, :prefix], prefix_rows)
    expected = torch.full((1, new_grid[0] * new_grid[1], 2), 0.75)
    torch.testing.assert_close(resized[:, prefix:], expected)


@given(old_grid=grids, new_grid=grids)
@settings(max_examples=40, deadline=None)
def test_resizing_the_transposed_grid_transposes_the_result(old_grid: Grid, new_grid: Grid) -> None:
    def turned(table: torch.Tensor, grid: Grid) -> torch.Tensor:
        return table.unflatten(1, grid).transpose(1, 2).flatten(1, 2)

    table = torch.randn(1, old_grid[0] * old_grid[1], 2)
    resized = resize_position_table(
        table, old_grid=old_grid, new_grid=new_grid, num_prefix_tokens=0
    )
    from_turned = resize_position_table(
        turned(table, old_grid),
        old_grid=old_grid[::-1],
        new_grid=new_grid[::-1],
        num_prefix_tokens=0,
    )
    torch.testing.assert_close(turned(resized, new_grid), from_turned)


@pytest.mark.parametrize("method", RESIZES)
def test_the_same_grid_leaves_the_table_as_it_is(method: str) -> None:
    table = torch.randn(1, 7, 2)
    same = resize_position_table(
        table, old_grid=(2, 3), new_grid=(2, 3), num_prefix_tokens=1, method=method
    )
    assert same is table


@pytest.mark.parametrize("method", RESIZES)
def test_every_method_keeps_prefix_rows_constants_and_the_order_of_sides(method: str) -> None:
    table = torch.randn(1, 1 + 6 * 4, 3, generator=torch.Generator().manual_seed(0))
    # The first channel grows from row to row, the second is constant.
    table[0, 1:, 0] = torch.arange(6).repeat_interleave(4)
    table[0, 1:, 1] = 0.5
    resized = resize_position_table(
        table, old_grid=(6, 4), new_grid=(9, 5), num_prefix_tokens=1, method=method
    )
    assert torch.equal(resized[:, :1], table[:, :1])
    patches = resized[0, 1:].view(9, 5, 3)
    torch.testing.assert_close(patches[..., 1], torch.full((9, 5), 0.5))
    torch.testing.assert_close(patches[:, 0, 0], patches[:, 4, 0])
    assert (patches[1:, 0, 0] > patches[:-1, 0, 0]).all()
    transposed = resize_position_table(
        table[:, 1:].view(1, 6, 4, 3).transpose(1, 2).flatten(1, 2), old_grid=(4, 6),
        new_grid=(5, 9), num_prefix_tokens=0, method=method,
    )  # fmt: skip
    torch.testing.assert_close(
        transposed[0].view(5, 9, 3).transpose(0, 1), patches, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("bicubic", {"mode": "bicubic", "align_corners": False}),
        ("bicubic_antialias", {"mode": "bicubic", "align_corners": False, "antialias": True}),
        ("bicubic_corners", {"mode": "bicubic", "align_corners": True}),
        (
            "bicubic_offset",
            {"mode": "bicubic", "align_corners": False, "scale_factor": (5.1 / 6, 7.1 / 4)},
        ),
    ],
)
def test_the_methods_of_other_libraries_are_torch_s(method: str, arguments: dict[str, Any]) -> None:
    table = torch.randn(1, 24, 3, generator=torch.Generator().manual_seed(0))
    resized = resize_position_table(
        table, old_grid=(6, 4), new_grid=(5, 7), num_prefix_tokens=0, method=method
    )
    size = {} if "scale_factor" in arguments else {"size": (5, 7)}
    expected = F.interpolate(table.view(1, 6, 4, 3).permute(0, 3, 1, 2), **size, **arguments)
    torch.testing.assert_close(resized, expected.flatten(2).mT)


# One axis.
@given(old=st.integers(1, 12), new=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_an_axis_keeps_its_ends_and_what_is_linear(old: int, new: int) -> None:
    table = torch.stack([torch.linspace(-1, 2, old), torch.full((old,), 0.25)], dim=1)[None]
    resized = resize_axis_table(table, new)
    assert resized.shape == (1, new, 2)
    torch.testing.assert_close(resized[0, 0], table[0, 0])
    torch.testing.assert_close(resized[0, :, 1], torch.full((new,), 0.25))
    if min(old, new) > 1:
        torch.testing.assert_close(resized[0, :, 0], torch.linspace(-1, 2, new))


def test_an_axis_of_the_same_length_is_left_as_it_is() -> None:
    table = torch.randn(1, 5, 2)
    assert resize_axis_table(table, 5) is table


# Offsets in reading order.
small_grids = st.tuples(st.integers(1, 4), st.integers(1, 4))


def offset_table(grid: Grid, *, width: int = 3, heads: int = 2) -> torch.Tensor:
    length = 2 * grid[0] * grid[1] - 1
    return torch.randn(heads, length, width, generator=torch.Generator().manual_seed(length))


@given(grid=small_grids)
@settings(max_examples=10, deadline=None)
def test_offsets_of_the_same_grid_are_left_as_they_are(grid: Grid) -> None:
    table = offset_table(grid)
    assert resize_offset_table(table, old_grid=grid, new_grid=grid) is table


@given(old_grid=small_grids, new_grid=small_grids)
@settings(max_examples=25, deadline=None)
def test_offsets_keep_a_constant_and_the_middle(old_grid: Grid, new_grid: Grid) -> None:
    table = offset_table(old_grid)
    table[..., 0] = 0.75
    resized = resize_offset_table(table, old_grid=old_grid, new_grid=new_grid)
    num_places = new_grid[0] * new_grid[1]
    assert resized.shape == (2, 2 * num_places - 1, 3)
    assert resized.isfinite().all()
    torch.testing.assert_close(resized[..., 0], torch.full((2, 2 * num_places - 1), 0.75))


@given(old_grid=small_grids, new_grid=small_grids, sign=st.sampled_from([-1, 1]))
@settings(max_examples=25, deadline=None)
def test_offsets_stay_symmetric_or_antisymmetric(old_grid: Grid, new_grid: Grid, sign: int) -> None:
    table = offset_table(old_grid)
    table = table + sign * table.flip(1)
    resized = resize_offset_table(table, old_grid=old_grid, new_grid=new_grid)
    torch.testing.assert_close(resized, sign * resized.flip(1))


@given(
    old_grid=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    new_grid=st.tuples(st.integers(2, 5), st.integers(2, 5)),
)
@settings(max_examples=25, deadline=None)
def test_offsets_from_corner_to_corner_keep_their_vectors(old_grid: Grid, new_grid: Grid) -> None:
    table = offset_table(old_grid)
    resized = resize_offset_table(table, old_grid=old_grid, new_grid=new_grid)
    torch.testing.assert_close(resized[:, 0], table[:, 0])
    torch.testing.assert_close(resized[:, -1], table[:, -1])


def plain_offsets(table: torch.Tensor, old_grid: Grid, new_grid: Grid) -> torch.Tensor:
    """Interpolate for each pair of positions separately, and average those of the same offset."""

    def place(index: int, grid: Grid) -> tuple[int, int]:
        return divmod(index, grid[1])

    count = new_grid[0] * new_grid[1]
    steps: dict[int, set[tuple[int, int]]] = {}
    for i, j in product(range(count), repeat=2):
        (row, column), (other_row, other_column) = place(i, new_grid), place(j, new_grid)
        steps.setdefault(i - j, set()).add((row - other_row, column - other_column))
    resized = torch.zeros(table.shape[0], 2 * count - 1, table.shape[2], dtype=torch.float64)
    for offset, pairs in steps.items():
        found = []
        for down, across in sorted(pairs):
            y = down * (old_grid[0] - 1) / (new_grid[0] - 1)
            x = across * (old_grid[1] - 1) / (new_grid[1] - 1)
            total = torch.zeros(table.shape[0], table.shape[2], dtype=torch.float64)
            for at_y, at_x in product(
                range(1 - old_grid[0], old_grid[0]), range(1 - old_grid[1], old_grid[1])
            ):
                weight = max(1 - abs(y - at_y), 0) * max(1 - abs(x - at_x), 0)
                index = at_y * old_grid[1] + at_x + old_grid[0] * old_grid[1] - 1
                total += weight * table[:, index].double()
            found.append(total)
        resized[:, offset + count - 1] = torch.stack(found).mean(0)
    return resized


@pytest.mark.parametrize(
    ("old_grid", "new_grid"), [((3, 4), (4, 3)), ((2, 2), (3, 5)), ((4, 3), (2, 3))]
)
def test_offsets_are_interpolated_by_their_steps_down_and_across(
    old_grid: Grid, new_grid: Grid
) -> None:
    table = offset_table(old_grid)
    resized = resize_offset_table(table, old_grid=old_grid, new_grid=new_grid)
    expected = plain_offsets(table, old_grid, new_grid)
    torch.testing.assert_close(resized.double(), expected, atol=1e-6, rtol=1e-5)


def test_a_table_of_another_length_is_refused() -> None:
    with pytest.raises(
        RequestError, match="a position table of 7 rows is not one of 2 x 2 patches"
    ):
        resize_position_table(
            torch.zeros(1, 7, 2), old_grid=(2, 2), new_grid=(3, 3), num_prefix_tokens=1
        )
