import dataclasses
import json
from typing import Any

import pytest

from vitral.config.preprocessing import Preprocessing, default_preprocessing, preprocessing_from
from vitral.errors import RequestError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resize": "squish"}, "resize='squish' is not known: did you mean 'squash'"),
        ({"interpolation": "cubic"}, "interpolation='cubic' is not known: did you mean 'bicubic'"),
        ({"interpolation": "nearest"}, "use one of bilinear, bicubic, area"),
        ({"rounding": "floor"}, "rounding='floor' is not known: use one of round, truncate, none"),
        ({"geometry": "torch"}, "geometry='torch' is not known: did you mean 'torchvision'"),
        ({"crop_share": 0.0}, "crop_share=0.0: give a share above 0, at most 1"),
        ({"crop_share": 1.1}, "crop_share=1.1: give a share above 0, at most 1"),
        ({"channels": 1}, "must have one value for each of channels=1"),
        ({"mean": (0.5,)}, r"mean=\(0.5,\) and std=\(0.5, 0.5, 0.5\) must have one value"),
        ({"levels": (5.0, 5.0)}, r"levels=\(5.0, 5.0\): give black, then white"),
        ({"std": (0.5, 0.0, 0.5)}, r"std=\(0.5, 0.0, 0.5\) must be above 0"),
    ],
    ids=str,
)
def test_a_value_that_can_t_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Preprocessing(size=(8, 8), **fields)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_preprocessing_comes_back_from_json(channels: int) -> None:
    wanted = default_preprocessing(
        (24, 32),
        channels=channels,
        resize="squash",
        crop_share=0.875,
        geometry="tensorflow",
        interpolation="area",
        antialias=False,
        rounding="truncate",
    )
    assert preprocessing_from(json.loads(json.dumps(dataclasses.asdict(wanted)))) == wanted
    assert len(wanted.mean) == len(wanted.std) == channels


@pytest.mark.parametrize(("antialias", "rounding"), [(True, "round"), (False, "none")])
def test_what_was_saved_before_rounding_was_a_field_keeps_its_meaning(
    antialias: bool, rounding: str
) -> None:
    wanted = default_preprocessing((24, 32), channels=3, antialias=antialias, rounding=rounding)
    saved = dataclasses.asdict(wanted)
    del saved["rounding"], saved["geometry"]
    assert preprocessing_from(saved) == wanted


def test_a_new_preprocessing_is_rounded_with_and_without_antialias() -> None:
    assert default_preprocessing((8, 8), channels=3, antialias=False).rounding == "round"
