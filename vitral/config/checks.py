"""Validation that the settings share: types, ranges, choices, sizes in pixels."""

import difflib
import functools
import math
import numbers
import types
import typing
from numbers import Integral
from typing import Any

from vitral.errors import RequestError


def check_types(record: Any) -> None:
    """Raise unless every field of a frozen dataclass has its declared type.

    Integers of other libraries, such as numpy's, become Python's.
    """
    kind: Any = type(record)
    for name, wanted in _types(kind).items():
        value = getattr(record, name)
        if isinstance(value, numbers.Integral) and not isinstance(value, bool | int):
            value = int(value)
            object.__setattr__(record, name, value)
        options = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
        if not any(_is_of(value, option) for option in options):
            kinds = [_KINDS.get(option) or _kind_of(option) for option in options]
            raise RequestError(f"{name}={value!r}: give {' or '.join(kinds)}")


@functools.cache
def _types(record: Any) -> dict[str, Any]:
    return typing.get_type_hints(record)


_KINDS: dict[Any, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text",
    types.NoneType: "none",
}  # fmt: skip


def _kind_of(wanted: Any) -> str:
    return "a sequence" if typing.get_origin(wanted) is tuple else f"a {wanted.__name__}"


def _is_of(value: Any, wanted: Any) -> bool:
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if typing.get_origin(wanted) is tuple:
        return isinstance(value, tuple | list)  # its items are checked elsewhere
    return isinstance(value, wanted)


def check_positive(**values: float | None) -> None:
    """Raise unless every value that is given is a finite number above 0."""
    for name, value in values.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise RequestError(f"{name}={value} must be above 0")


def check_not_negative(**values: float | None) -> None:
    """Raise unless every value that is given is a finite number, 0 or more."""
    for name, value in values.items():
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise RequestError(f"{name}={value} must be 0 or more")


def check_share(**values: float) -> None:
    """Raise unless every value is a share: 0 or more and below 1."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise RequestError(f"{name}={value} is a share: give 0 or more and less than 1")


def check_choice(choices: tuple[str, ...], **values: Any) -> None:
    """Raise unless every value is one of the choices, naming the nearest."""
    for name, value in values.items():
        if value not in choices:
            close = difflib.get_close_matches(str(value), choices, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(choices)}"
            raise RequestError(f"{name}={value!r} is not known: {hint}")


Size = int | tuple[int, int]
"""The side of a square, or (height, width)."""


def as_pair(size: Size, *, name: str) -> tuple[int, int]:
    """Return (height, width).

    Raises:
        RequestError: neither a number of pixels nor two.
    """
    pair = tuple(size) if isinstance(size, tuple | list) else (size, size)
    whole = [isinstance(side, Integral) and not isinstance(side, bool) for side in pair]
    if len(pair) != 2 or not all(whole) or not all(side > 0 for side in pair):
        raise RequestError(f"{name}={size}: give a number of pixels, or (height, width)")
    return (int(pair[0]), int(pair[1]))


def show_size(size: tuple[int, ...]) -> str:
    """Format a size as `224 x 320`."""
    return f"{size[0]} x {size[1]}"
