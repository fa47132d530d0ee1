from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import zoom

from vitral.errors import RequestError
from vitral.models.position import resize_position_table

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


def test_the_same_grid_leaves_the_table_as_it_is() -> None:
    table = torch.randn(1, 7, 2)
    assert torch.equal(
        resize_position_table(table, old_grid=(2, 3), new_grid=(2, 3), num_prefix_tokens=1), table
    )


def test_a_table_of_another_length_is_refused() -> None:
    with pytest.raises(
        RequestError, match="a position table of 7 rows is not one of 2 x 2 patches"
    ):
        resize_position_table(
            torch.zeros(1, 7, 2), old_grid=(2, 2), new_grid=(3, 3), num_prefix_tokens=1
        )
