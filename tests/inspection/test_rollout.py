"""Attention rollout: closed forms, and the original's numbers."""

import re
from collections.abc import Callable

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.errors import RequestError
from vitral.inspection import attention_rollout, attention_rollouts, pooled_rollout

Arrays = dict[str, np.ndarray]


def attention_of(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits)
    return shares / shares.sum(axis=-1, keepdims=True)


@st.composite
def layers_of_attention(draw: st.DrawFn) -> list[np.ndarray]:
    length = draw(st.integers(2, 7))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), length, length)
    logits = arrays.arrays(np.float64, shape, elements=st.floats(-6, 6))
    return [attention_of(draw(logits)) for _ in range(draw(st.integers(1, 4)))]


@given(layers_of_attention(), st.floats(0, 1), st.floats(0, 0.95))
def test_rows_sum_to_one(layers: list[np.ndarray], residual: float, discard: float) -> None:
    rollout = attention_rollout(layers, residual=residual, discard=discard, num_prefix_tokens=1)
    np.testing.assert_allclose(rollout.sum(axis=-1), 1, atol=1e-9)
    assert (rollout >= 0).all()


@given(layers_of_attention())
def test_each_image_is_by_itself(layers: list[np.ndarray]) -> None:
    fix_signs = [layer[::-1] for layer in layers]
    rollout = attention_rollout(layers, discard=0.3)
    np.testing.assert_allclose(attention_rollout(fix_signs, discard=0.3)[::-1], rollout)


def test_attention_to_oneself_rolls_out_to_the_identity() -> None:
    identity = np.eye(6)[None, None].repeat(3, axis=1)
    np.testing.assert_array_equal(attention_rollout([identity] * 5), np.eye(6)[None])


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("residual", [0.0, 0.25, 0.5])
def test_even_attention_has_a_closed_form(depth: int, residual: float) -> None:
    """((1 - r) J + r I)^depth = r^depth I + (1 - r^depth) J, J = 1 / L everywhere."""
    even = np.full((1, 2, 5, 5), 1 / 5)
    left = residual**depth
    wanted = left * np.eye(5) + (1 - left) / 5
    rollout = attention_rollout([even] * depth, residual=residual)
    np.testing.assert_allclose(rollout[0], wanted, rtol=1e-12)


def test_the_last_layer_stands_at_the_left() -> None:
    """Token 0 looks at 1 in the last layer, which looked at 2 in the first."""
    first, last = np.eye(3), np.eye(3)
    first[1], last[0] = [0, 0, 1], [0, 1, 0]
    rollout = attention_rollout([first[None, None], last[None, None]], residual=0)
    np.testing.assert_array_equal(rollout[0, 0], [0, 0, 1])


def test_rollouts_give_every_layer_and_end_with_the_rollout() -> None:
    generator = np.random.default_rng(0)
    layers = [attention_of(generator.normal(size=(2, 3, 5, 5))) for _ in range(4)]
    found = list(attention_rollouts(iter(layers), discard=0.4))
    for count in range(1, 5):
        np.testing.assert_allclose(found[count - 1], attention_rollout(layers[:count], discard=0.4))


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_the_smallest_entries_are_discarded_those_of_prefix_columns_never(prefix: int) -> None:
    generator = np.random.default_rng(1)
    matrix = attention_of(generator.normal(size=(1, 1, 6, 6)))
    matrix[0, 0, :, :prefix] /= 50  # the smallest of all
    matrix /= matrix.sum(axis=-1, keepdims=True)
    found = attention_rollout([matrix], residual=0, discard=0.5, num_prefix_tokens=prefix)[0]
    discarded = matrix[0, 0] <= np.sort(matrix.ravel())[17]
    discarded[:, :prefix] = False
    np.testing.assert_array_equal(found == 0, discarded)
    kept = np.where(discarded, 0, matrix[0, 0])
    np.testing.assert_allclose(found, kept / kept.sum(axis=-1, keepdims=True))


def test_a_token_of_which_nothing_is_left_goes_on_as_it_is() -> None:
    found = attention_rollout([EVEN, EVEN], discard=1.0, num_prefix_tokens=0)
    np.testing.assert_array_equal(found, np.eye(5)[None])


def test_the_rollout_is_the_original_s(reference: Callable[[str], Arrays]) -> None:
    wanted = reference("attention.analysis")
    layers = list(wanted["attention_weights"])
    for kind, residual in (("residual", 0.5), ("plain", 0.0)):
        each = attention_rollouts(layers, residual=residual)
        np.testing.assert_allclose(list(each), wanted[f"rollout_{kind}_per_layer"], atol=1e-5)
        rollout = attention_rollout(layers, residual=residual)
        np.testing.assert_allclose(rollout, wanted[f"rollout_{kind}"], atol=1e-5)
        mask = pooled_rollout(rollout, grid=tuple(wanted["grid"]))
        np.testing.assert_allclose(mask, wanted[f"rollout_{kind}_cls_mask"], atol=1e-5)


@pytest.mark.parametrize("asked", [{"residual": 1.5}, {"discard": -0.1}])
def test_shares_are_checked_layer_by_layer_too(asked: dict[str, float]) -> None:
    with pytest.raises(RequestError, match="is a share: use 0 to 1"):
        next(attention_rollouts([EVEN], **asked))


EVEN = np.full((1, 1, 5, 5), 0.2)


def random_rollout(tokens: int) -> np.ndarray:
    return attention_of(np.random.default_rng(2).normal(size=(2, tokens, tokens)))


def test_the_map_is_of_the_class_token_without_prefix_columns() -> None:
    rollout = random_rollout(3 + 6)
    found = pooled_rollout(rollout, grid=(2, 3), num_prefix_tokens=3)
    np.testing.assert_array_equal(found, rollout[:, 0, 3:].reshape(2, 2, 3))
    beside = pooled_rollout(rollout, grid=(2, 3), num_prefix_tokens=3, pool="token+register")
    np.testing.assert_array_equal(beside, found)


def test_the_map_of_a_mean_is_the_mean_over_the_patches_rows() -> None:
    rollout = random_rollout(1 + 6)
    found = pooled_rollout(rollout, grid=(2, 3), pool="gap")
    np.testing.assert_allclose(found, rollout[:, 1:, 1:].mean(axis=1).reshape(2, 2, 3))


def test_the_map_of_a_probe_weighs_the_rows() -> None:
    rollout = random_rollout(6)
    probe = attention_of(np.random.default_rng(3).normal(size=(2, 4, 1, 6)))
    found = pooled_rollout(
        rollout, grid=(2, 3), num_prefix_tokens=0, pool="map", pool_attention=probe
    )
    wanted = np.einsum("nl,nlk->nk", probe.mean(axis=1)[:, 0], rollout)
    np.testing.assert_allclose(found, wanted.reshape(2, 2, 3))


@pytest.mark.parametrize(
    ("layers", "asked", "words"),
    [
        ([], {}, "there is no attention to roll out"),
        ([EVEN], {"residual": 1.5}, "residual=1.5 is a share: use 0 to 1"),
        ([EVEN], {"discard": -0.1}, "discard=-0.1 is a share: use 0 to 1"),
        (
            [EVEN],
            {"discard": 1.0, "num_prefix_tokens": 0, "residual": 0.0},
            "discard=1.0 leaves nothing of a token",
        ),
        ([EVEN, EVEN[..., :4, :4] * 1.25], {}, "layers of shapes (1, 5, 5) and (1, 4, 4)"),
    ],
)
def test_a_rollout_that_can_t_be_is_told(
    layers: list[np.ndarray], asked: dict[str, float], words: str
) -> None:
    with pytest.raises(RequestError, match=re.escape(words)):
        attention_rollout(layers, **asked)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"grid": (2, 3)}, "does not fit 2 x 3 patches and 1 prefix tokens: (N, 7, 7) was wanted"),
        ({"grid": (2, 2), "pool": "map"}, "pool='map' needs pool_attention"),
        ({"grid": (1, 5), "num_prefix_tokens": 0}, "pool='token' reads a class token"),
    ],
)
def test_a_map_that_can_t_be_is_told(asked: dict[str, object], words: str) -> None:
    with pytest.raises(RequestError, match=re.escape(words)):
        pooled_rollout(EVEN[:, 0], **asked)
