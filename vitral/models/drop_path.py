"""Stochastic depth: which branches of each example are skipped, from which random numbers."""

import torch
from jaxtyping import Float
from torch import Tensor

from vitral.errors import RequestError

GOLDEN_SHARE = 0.618033988749895
"""The golden ratio's fraction: its multiples, modulo 1, are as evenly spaced as possible (Weyl)."""


def stochastic_depth(
    uniforms: Float[Tensor, "N depth branches"], *, drop_path: float
) -> Float[Tensor, "N depth branches"]:
    """Return the factor of each branch: 0 where it is skipped, else 1 / (share kept).

    Args:
        uniforms: in [0, 1), for each example, block and branch of a block.
        drop_path: share skipped in the last block; it grows linearly from 0 in the first.

    Source: arXiv 1603.09382, section 3 (linear decay), here for each example separately; the
    factor preserves the mean.
    """
    share = torch.linspace(0, drop_path, uniforms.shape[1], device=uniforms.device).view(1, -1, 1)
    return (uniforms >= share).float() / (1 - share)


class DropPathUniforms:
    """Uniform numbers for N examples, dealt to one forward pass after another.

    Slice k of the examples' rows is their view k. When the views are used up they are reused,
    shifted by the golden ratio, so a slice is still a function of the example and of k alone.
    """

    def __init__(self, uniforms: Float[Tensor, "N views paths"]) -> None:
        self._uniforms = uniforms
        self._num_dealt = 0

    def next_rows(self, num_rows: int) -> Float[Tensor, "M paths"]:
        """Return the numbers of the next pass of `num_rows` rows.

        Args:
            num_rows: the number of examples, or a multiple of it: consecutive slices.

        Raises:
            RequestError: it is no multiple.
        """
        num_examples = self._uniforms.shape[0]
        if num_rows % num_examples:
            raise RequestError(
                f"a forward pass of {num_rows} images draws its stochastic depth from numbers of "
                f"{num_examples} examples: give as many images or a multiple, view after view, or "
                "let torch's generator draw, model.use_drop_path(None)"
            )
        first = self._num_dealt
        self._num_dealt += num_rows // num_examples
        slices = [self._slice(number) for number in range(first, self._num_dealt)]
        return slices[0] if len(slices) == 1 else torch.cat(slices)

    def _slice(self, number: int) -> Tensor:
        turn, view = divmod(number, self._uniforms.shape[1])
        uniforms = self._uniforms[:, view]
        return (uniforms + turn * GOLDEN_SHARE) % 1 if turn else uniforms
