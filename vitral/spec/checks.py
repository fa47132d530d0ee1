"""Checks that the frozen settings share."""

import difflib
import math
from typing import Any

from vitral.errors import RequestError


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
