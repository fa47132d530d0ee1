from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.errors import RequestError
from vitral.spec.names import model_config
from vitral.spec.resnet import V1_FIELDS, ResNetConfig

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
    assert config.untiled_note() is None


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
