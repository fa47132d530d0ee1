import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.config.checks import (
    as_pair,
    check_choice,
    check_not_negative,
    check_positive,
    check_share,
    check_types,
    show_size,
)
from vitral.errors import RequestError

BAD = [math.nan, math.inf, -math.inf, -1, -0.5]


@pytest.mark.parametrize("value", [*BAD, 0])
def test_a_positive_number_is_finite_and_above_0(value: float) -> None:
    with pytest.raises(RequestError, match="rate=.* must be above 0"):
        check_positive(fine=1, rate=value)


@pytest.mark.parametrize("value", BAD)
def test_a_number_that_is_not_negative_is_finite(value: float) -> None:
    with pytest.raises(RequestError, match="rate=.* must be 0 or more"):
        check_not_negative(fine=0, rate=value)


@pytest.mark.parametrize("value", [*BAD, 1])
def test_a_share_is_below_1(value: float) -> None:
    with pytest.raises(RequestError, match="part=.* is a share: give 0 or more and less than 1"):
        check_share(fine=0, part=value)


@given(st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True))
def test_a_number_between_0_and_1_passes_every_check(value: float) -> None:
    check_positive(value=value, absent=None)
    check_not_negative(value=value, absent=None)
    check_share(value=value)


@pytest.mark.parametrize(
    ("value", "hint"), [("cosin", "did you mean 'cosine'"), ("zzz", "use one of cosine, linear")]
)
def test_a_choice_suggests_the_nearest(value: str, hint: str) -> None:
    with pytest.raises(RequestError, match=f"decay='{value}' is not known: {hint}"):
        check_choice(("cosine", "linear"), fine="linear", decay=value)


@dataclass(frozen=True)
class Record:
    count: int = 1
    share: float = 0.5
    name: str = "a"
    flag: bool | None = None
    sides: tuple[int, ...] = (1, 2)


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"count": np.int64(3)}, {"share": 1}, {"flag": True}, {"sides": (3,)}, {"sides": [3]},
    ],
)  # fmt: skip
def test_values_of_the_declared_types_pass(fields: dict[str, Any]) -> None:
    record = Record(**fields)
    check_types(record)
    assert type(record.count) is int


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 1.0}, "count=1.0: give a whole number"),
        ({"count": True}, "count=True: give a whole number"),
        ({"count": "3"}, "count='3': give a whole number"),
        ({"share": "0.1"}, "share='0.1': give a number"),
        ({"share": True}, "share=True: give a number"),
        ({"name": None}, "name=None: give text"),
        ({"flag": "no"}, "flag='no': give true or false or none"),
        ({"sides": 5}, "sides=5: give a sequence"),
    ],
)
def test_values_of_other_types_are_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        check_types(Record(**fields))


@pytest.mark.parametrize("size", [(3, 5), [3, 5]])
def test_a_pair_is_height_and_width(size: Any) -> None:
    assert as_pair(size, name="image_size") == (3, 5)


def test_a_number_is_a_square() -> None:
    assert as_pair(7, name="image_size") == (7, 7)
    assert show_size(as_pair(7, name="image_size")) == "7 x 7"


@pytest.mark.parametrize("size", [0, -1, 2.5, "8", None, (3,), (3, 4, 5), (3, 0), (3.0, 4), ()])
def test_anything_else_is_refused(size: Any) -> None:
    with pytest.raises(RequestError, match=r"side=.*: give a number of pixels, or \(height, wid"):
        as_pair(size, name="side")
