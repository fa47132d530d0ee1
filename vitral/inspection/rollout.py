"""Attention rollout: how much of each input token reaches an output, through all layers.

Source: Abnar and Zuidema (arXiv 2005.00928), section 3, as the ViT paper uses it (D.8, Figures 6
and 14): attention averaged over heads, mixed equally with the residual connection, and multiplied
from the first layer to the last.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from vitral.errors import RequestError
from vitral.inspection.arrays import Array, as_floats, as_given, check_attention


def attention_rollout(
    attention: Iterable[Array],
    *,
    residual: float = 0.5,
    discard: float = 0.0,
    num_prefix_tokens: int = 1,
) -> Array:
    """Multiply the attention of all layers, each mixed with the identity.

    Args:
        attention: (N, heads, L, L) of each layer, the first layer first; a generator is read layer
            by layer.
        residual: share r of the identity in (1 - r) A + r I, 0..1. 0.5 is Abnar and Zuidema's, 0
            what the text of the ViT paper says.
        discard: share of the smallest entries of each image's head-averaged matrix that are set to
            0 first, 0..1; the rows are then renormalised to sum to 1.
        num_prefix_tokens: class token and registers, in whose columns nothing is discarded.

    Returns:
        (N, L, L): row i is the share of each input token in output token i; rows sum to 1.

    Raises:
        RequestError: no layer, shapes that differ, rows that do not sum to 1, a share out of
            range, or so much discarded that nothing is left of a row.
    """
    rollouts = attention_rollouts(
        attention, residual=residual, discard=discard, num_prefix_tokens=num_prefix_tokens
    )
    last = deque(rollouts, maxlen=1)
    if not last:
        raise RequestError("there is no attention to roll out: give that of a layer or more")
    return last[0]


def attention_rollouts(
    attention: Iterable[Array],
    *,
    residual: float = 0.5,
    discard: float = 0.0,
    num_prefix_tokens: int = 1,
) -> Iterator[Array]:
    """Yield the rollout up to each layer; arguments as for `attention_rollout`."""
    for name, share in (("residual", residual), ("discard", discard)):
        if not 0 <= share <= 1:
            raise RequestError(f"{name}={share} is a share: use 0 to 1")
    rollout = None
    for layer in attention:
        rollout = _onwards(rollout, check_attention(layer), residual, discard, num_prefix_tokens)
        yield as_given(rollout, layer)


def _onwards(
    before: Tensor | None, layer: Tensor, residual: float, discard: float, prefix: int
) -> Tensor:
    """Extend a rollout (N, L, L) by one more layer (N, heads, L, L)."""
    mixed = _discard(layer.mean(dim=1), discard, prefix)
    mixed = (1 - residual) * mixed
    mixed.diagonal(dim1=1, dim2=2).add_(residual)
    sums = mixed.sum(dim=-1, keepdim=True)
    if not sums.all():
        raise RequestError(f"discard={discard} leaves nothing of a token's attention: use less")
    mixed = mixed / sums
    if before is None:
        return mixed
    if before.shape != mixed.shape:
        raise RequestError(
            f"layers of shapes {tuple(before.shape)} and {tuple(mixed.shape)}, averaged over "
            "heads: give layers over the same images and tokens"
        )
    return mixed @ before


def _discard(matrix: Tensor, share: float, prefix: int) -> Tensor:
    """Set the smallest entries of each matrix (N, L, L) to 0, except in prefix columns.

    Rows that are not all 0 are renormalised to sum to 1.
    """
    count = int(share * matrix.shape[-1] ** 2)
    if not count:
        return matrix
    smallest = matrix.flatten(1).topk(count, dim=1, largest=False).indices
    mask = torch.ones_like(matrix).flatten(1).scatter(1, smallest, 0).view_as(matrix)
    mask[:, :, :prefix] = 1
    rest = matrix * mask
    sums = rest.sum(dim=-1, keepdim=True)
    return rest / torch.where(sums > 0, sums, 1)


def pooled_rollout(
    rollout: Array,
    *,
    grid: tuple[int, int],
    pool: str = "token",
    num_prefix_tokens: int = 1,
    pool_attention: Array | None = None,
) -> Array:
    """Return the share of each patch in the head's input.

    Args:
        rollout: (N, L, L) of `attention_rollout`.
        grid: patches down and across.
        pool: as in the model's config. "token" (or any other name, if there is a class token): the
            class token's row; "gap": the mean over the patches' rows; "map": the rows weighted by
            the attention of the pooling probe.
        num_prefix_tokens: class token and registers; their columns are left out.
        pool_attention: (N, heads, 1, L) of the probe, for "map": averaged over its heads.

    Returns:
        (N, rows, columns) of the grid. The sum is less than 1 by the columns left out.

    Raises:
        RequestError: tokens that do not fit the grid, or a pool whose input is missing.
    """
    weights = as_floats(rollout)
    prefix, num_tokens = num_prefix_tokens, num_prefix_tokens + grid[0] * grid[1]
    if weights.ndim != 3 or weights.shape[1:] != (num_tokens, num_tokens):
        raise RequestError(
            f"a rollout of shape {tuple(weights.shape)} does not fit {grid[0]} x {grid[1]} patches "
            f"and {prefix} prefix tokens: (N, {num_tokens}, {num_tokens}) was wanted"
        )
    if pool == "map":
        if pool_attention is None:
            raise RequestError("pool='map' needs pool_attention, that of the pool's probe")
        probe = as_floats(pool_attention).mean(dim=1)
        read = (probe.to(weights.dtype) @ weights)[:, 0]
    elif pool == "gap":
        read = weights[:, prefix:].mean(dim=1)
    elif prefix:
        read = weights[:, 0]
    else:
        raise RequestError(
            f"pool={pool!r} reads a class token, num_prefix_tokens={prefix} has none"
        )
    return as_given(read[:, prefix:].unflatten(1, grid), rollout)
