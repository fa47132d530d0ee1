"""Attention that can't be what it is said to be."""

import re

import numpy as np
import pytest
import torch

from vitral.errors import RequestError
from vitral.inspection import (
    AxialMaps,
    attention_entropy,
    attention_rollout,
    mean_attention_distance,
)

EVEN = np.full((1, 1, 5, 5), 0.2)
MEASURES = {
    "rollout": lambda attention: attention_rollout([attention]),
    "distance": lambda attention: mean_attention_distance(attention, grid=(2, 2), patch_size=8),
    "entropy": attention_entropy,
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize(
    ("attention", "words"),
    [
        (EVEN[0], "attention of shape (1, 5, 5): give (N, heads, L, L)"),
        (EVEN[..., :4], "attention of shape (1, 1, 5, 4): give (N, heads, L, L)"),
        (EVEN[None], "attention along rows or columns (ndarray of shape (1, 1, 1, 5, 5)): give"),
        (AxialMaps(EVEN, EVEN), "attention along rows or columns (AxialMaps of shape ()): give"),
        (3 * EVEN, "a row of the attention sums to 3, not to 1: give finite weights, after the so"),
        (np.nan * EVEN, "a row of the attention sums to nan"),
    ],
)
def test_what_is_no_attention_is_told(measure: object, attention: np.ndarray, words: str) -> None:
    with pytest.raises(RequestError, match=re.escape(words)):
        measure(attention)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_arrays_that_torch_does_not_read_are_read(measure: object) -> None:
    backwards = EVEN.repeat(2, axis=0)[::-1]
    fixed = EVEN.repeat(2, axis=0)
    fixed.flags.writeable = False
    np.testing.assert_array_equal(measure(backwards), measure(fixed))


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_what_comes_out_is_of_the_kind_that_went_in(measure: object) -> None:
    assert measure(EVEN).dtype == np.float64
    assert measure(torch.from_numpy(EVEN).float()).dtype == torch.float32
    assert measure(torch.from_numpy(EVEN).bfloat16()).dtype == torch.float32
    np.testing.assert_allclose(measure(EVEN), measure(torch.from_numpy(EVEN)).numpy())
