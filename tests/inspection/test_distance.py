"""How far attention reaches: closed forms, and the original's numbers."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from vitral.errors import RequestError
from vitral.inspection import mean_attention_distance

Arrays = dict[str, np.ndarray]


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
    turned = attention[:, :, order][:, :, :, order]
    np.testing.assert_allclose(
        mean_attention_distance(attention, grid=grid, patch_size=(16, 8)),
        mean_attention_distance(turned, grid=grid[::-1], patch_size=(8, 16)),
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
