from typing import Any

import pytest

from vitral.errors import RequestError
from vitral.spec.axial_resnet import AxialResNetConfig

SMALL: dict[str, Any] = {"name": "x", "stages": (1, 2), "width_factor": 0.25}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages": ()}, r"stages=\(\): give the number of units of each stage"),
        ({"stages": (1, -1)}, r"stages=\(1, -1\): give the number of units of each stage"),
        ({"num_groups": 0}, "num_groups=0 must be above 0"),
        ({"width_factor": -1}, "width_factor=-1 must be above 0"),
        ({"norm_eps": 0}, "norm_eps=0 must be above 0"),
        ({"in_channels": 0}, "in_channels=0 must be above 0"),
        ({"num_classes": -2}, "num_classes=-2 must be 0 or more"),
        (
            {"width_factor": 0.3},
            "width_factor=0.3 gives 38.4 channels, which num_groups=8 groups of keys and values "
            "do not divide: use another width_factor",
        ),
        (
            {"image_size": 4},
            r"image_size=\(4, 4\) leaves nothing of the last map: give sides of at least 8",
        ),
        ({"image_size": "4"}, "image_size=4: give a number of pixels"),
    ],
    ids=str,
)
def test_a_value_that_can_t_be_is_refused_with_what_to_do(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        AxialResNetConfig(**SMALL | fields)


def test_the_maps_round_up_in_the_root_and_down_after_it() -> None:
    config = AxialResNetConfig(**SMALL | {"stages": (1, 1, 1), "image_size": (45, 64)})
    assert config.grids == ((12, 16), (6, 8), (3, 4))
    assert AxialResNetConfig(**SMALL | {"image_size": (25, 64)}).grids == ((7, 16), (3, 8))


def test_the_smallest_image_that_is_said_to_do_does() -> None:
    assert AxialResNetConfig(**SMALL | {"image_size": 8}).grids[-1] == (1, 1)


@pytest.mark.parametrize(
    ("size", "note"),
    [
        (224, None),
        (
            (36, 64),
            "images of 36 x 64 give maps of odd sides, whose last row or column is left out when "
            "they are halved: sides that 8 divides lose nothing",
        ),
    ],
)
def test_what_the_halvings_leave_out_is_told(size: Any, note: str | None) -> None:
    assert AxialResNetConfig(**SMALL | {"image_size": size}).untiled_note() == note
