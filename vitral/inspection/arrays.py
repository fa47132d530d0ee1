"""Checks and conversions of attention that is given as arrays."""

from operator import index
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from vitral.errors import RequestError

Array = TypeVar("Array", np.ndarray, Tensor)
"""NumPy array or torch tensor; results have the type of the argument."""
SUM_TOLERANCE = 0.02
"""Largest deviation of a row's sum from 1: the error of a softmax in bfloat16."""


def as_floats(array: np.ndarray | Tensor) -> Tensor:
    """Return an array as a float32 tensor; float64 stays float64."""
    if isinstance(array, np.ndarray):
        # torch accepts neither negative strides nor read-only memory.
        array = (
            array if array.flags.writeable and min(array.strides, default=0) >= 0 else array.copy()
        )
        tensor = torch.from_numpy(array)
    else:
        tensor = array.detach()
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def as_given(result: Tensor, given: Array) -> Array:
    """Return a result as NumPy if the given array is NumPy."""
    return result.cpu().numpy() if isinstance(given, np.ndarray) else result


def check_attention(attention: np.ndarray | Tensor, *, num_tokens: int | None = None) -> Tensor:
    """Return attention (N, heads, L, L) as floats.

    Args:
        attention: of one layer.
        num_tokens: L; None: any.

    Raises:
        RequestError: another shape, or rows that do not sum to 1.
    """
    shape = tuple(getattr(attention, "shape", ()))
    if len(shape) == 5 or not shape:
        raise RequestError(
            f"attention along rows or columns ({type(attention).__name__} of shape {shape}): give "
            "attention over all tokens (N, heads, L, L), which `full_attention` makes of it"
        )
    if len(shape) != 4 or shape[2] != shape[3]:
        raise RequestError(f"attention of shape {shape}: give (N, heads, L, L)")
    if num_tokens is not None and shape[3] != num_tokens:
        raise RequestError(
            f"attention over {shape[3]} tokens does not fit the {num_tokens} of grid and prefix: "
            "give the model's grid and its num_prefix_tokens (class token and registers)"
        )
    weights = as_floats(attention)
    sums = weights.sum(dim=-1)
    off = (sums - 1).abs().nan_to_num(nan=torch.inf)
    if off.numel() and off.max() > SUM_TOLERANCE:
        worst = sums.flatten()[off.argmax()].item()
        raise RequestError(
            f"a row of the attention sums to {worst:.3g}, not to 1: give finite weights, after the "
            "softmax"
        )
    return weights


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a size."""
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return (index(height), index(width))
