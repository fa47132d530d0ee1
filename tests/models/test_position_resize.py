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

from vitral.errors import RequestError
from vitral.models.position_resize import (
    resize_axis_table,
    resize_offset_table,
    resize_position_table,
)
from vitral.spec.vit import RESIZES

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
    places = torch.full((1, new_grid[0] * new_grid[1], 2), 0.75)
    torch.testing.assert_close(resized[:, prefix:], places)


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
    places = resized[0, 1:].view(9, 5, 3)
    torch.testing.assert_close(places[..., 1], torch.full((9, 5), 0.5))
    torch.testing.assert_close(places[:, 0, 0], places[:, 4, 0])
    assert (places[1:, 0, 0] > places[:-1, 0, 0]).all()
    turned = resize_position_table(
        table[:, 1:].view(1, 6, 4, 3).transpose(1, 2).flatten(1, 2), old_grid=(4, 6),
        new_grid=(5, 9), num_prefix_tokens=0, method=method,
    )  # fmt: skip
    torch.testing.assert_close(
        turned[0].view(5, 9, 3).transpose(0, 1), places, atol=1e-5, rtol=1e-5
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
    places = 2 * grid[0] * grid[1] - 1
    return torch.randn(heads, places, width, generator=torch.Generator().manual_seed(places))


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
    """Interpolate for each pair of places by itself, and average those of the same offset."""

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
