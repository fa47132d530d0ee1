from typing import Any

import pytest

from vitral.errors import RequestError
from vitral.spec.sizes import as_pair, show_size


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
