from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.config.names import model_config
from vitral.config.resnet import V1_FIELDS, AxialResNetConfig, ResNetConfig
from vitral.errors import RequestError

SMALL: dict[str, Any] = {"name": "x", "stages": (1, 2), "width_factor": 0.5}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages": ()}, r"stages=\(\): a network of version v2 needs at least one stage"),
        ({"stages": (2, 0)}, r"stages=\(2, 0\): give the number of units of each stage"),
        ({"stages": (2, 1.5)}, r"stages=\(2, 1.5\): give the number of units of each stage"),
        ({"width_factor": 0}, "width_factor=0 must be above 0"),
        (
            {"width_factor": 0.75},
            "width_factor=0.75 gives 48 channels, which 32 groups do not divide: use a multiple",
        ),
        ({"in_channels": 0}, "in_channels=0 must be above 0"),
        ({"norm_eps": 0.0}, "norm_eps=0.0 must be above 0"),
        ({"standardization_eps": -1.0}, "standardization_eps=-1.0 must be above 0"),
        ({"num_classes": -1}, "num_classes=-1 must be 0 or more"),
        ({"version": "v3"}, "version='v3' is not known: use one of v2, v1"),
        ({"standardization": "std"}, "standardization='std' is not known: "),
        ({"padding": "sam"}, "padding='sam' is not known: did you mean 'same'"),
        ({"pool_padding": "-inf"}, "pool_padding='-inf' is not known: "),
        ({"image_size": (8, 0)}, r"image_size=\(8, 0\): give a number of pixels"),
    ],
    ids=str,
)
def test_a_value_that_can_t_be_is_refused_with_what_to_do(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        ResNetConfig(**SMALL | fields)


@pytest.mark.parametrize(
    ("stages", "width", "channels", "stride"),
    [((3, 4, 6, 3), 1, 2048, 32), ((3, 4, 9), 1, 1024, 16), ((1,), 0.5, 128, 4), ((), 2, 128, 4)],
)
def test_last_channels_and_stride_follow_from_the_stages(
    stages: tuple[int, ...], width: float, channels: int, stride: int
) -> None:
    config = ResNetConfig(name="x", stages=stages, width_factor=width, **V1_FIELDS)
    assert (config.feature_dim, config.stride) == (channels, stride)


@given(side=st.integers(1, 600), num_stages=st.integers(1, 5))
def test_each_halving_of_the_map_rounds_up(side: int, num_stages: int) -> None:
    config = ResNetConfig(
        name="x", stages=(1,) * num_stages, width_factor=1, image_size=(side, 2 * side)
    )
    halved = (side, 2 * side)
    for _ in range(num_stages + 1):
        halved = ((halved[0] + 1) // 2, (halved[1] + 1) // 2)
    assert config.grid == halved
    assert config.uncovered_pixels_note() is None


def test_bit_has_the_conventions_of_its_authors_and_hybrids_those_of_the_official_code() -> None:
    bit = model_config("R50x1")
    stem = model_config("R50x1+ViT-B/16").resnet
    assert (bit.version, bit.norm_eps, bit.padding, bit.pool_padding) == (
        "v2", 1e-5, "fixed", "zero",
    )  # fmt: skip
    assert (bit.standardization, bit.standardization_eps) == ("variance", 1e-10)
    assert (stem.version, stem.norm_eps, stem.padding, stem.pool_padding) == (
        "v1", 1e-6, "same", "infinite",
    )  # fmt: skip
    assert (stem.standardization, stem.standardization_eps) == ("deviation", 1e-5)
    assert model_config("R50x1", version="v1").standardization == "deviation"


SMALL_AXIAL: dict[str, Any] = {"name": "x", "stages": (1, 2), "width_factor": 0.25}


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
def test_an_axial_value_that_can_t_be_is_refused_with_what_to_do(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        AxialResNetConfig(**SMALL_AXIAL | fields)


def test_the_maps_round_up_in_the_root_and_down_after_it() -> None:
    config = AxialResNetConfig(**SMALL_AXIAL | {"stages": (1, 1, 1), "image_size": (45, 64)})
    assert config.grids == ((12, 16), (6, 8), (3, 4))
    assert AxialResNetConfig(**SMALL_AXIAL | {"image_size": (25, 64)}).grids == ((7, 16), (3, 8))


def test_the_smallest_image_that_is_said_to_do_does() -> None:
    assert AxialResNetConfig(**SMALL_AXIAL | {"image_size": 8}).grids[-1] == (1, 1)


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
    assert AxialResNetConfig(**SMALL_AXIAL | {"image_size": size}).uncovered_pixels_note() == note
