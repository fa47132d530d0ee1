"""How spread attention is."""

import numpy as np

from vitral.inspection import attention_entropy


def test_even_attention_is_spread_over_all_tokens() -> None:
    np.testing.assert_allclose(attention_entropy(np.full((2, 3, 5, 5), 0.2)), np.log(5))


def test_attention_to_one_token_is_not_spread() -> None:
    np.testing.assert_array_equal(attention_entropy(np.eye(5)[None, None]), [[0.0]])


def test_it_is_the_mean_over_the_tokens_that_look() -> None:
    attention = np.eye(4)[None, None].copy()
    attention[0, 0, 0] = [0.5, 0.5, 0, 0]
    np.testing.assert_allclose(attention_entropy(attention), [[np.log(2) / 4]])
