import dataclasses
import json
from typing import Any

import pytest

from vitral.errors import RequestError
from vitral.spec.preprocessing import Preprocessing, default_preprocessing, preprocessing_from


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resize": "squish"}, "resize='squish' is not known: did you mean 'squash'"),
        ({"interpolation": "cubic"}, "interpolation='cubic' is not known: did you mean 'bicubic'"),
        ({"crop_share": 0.0}, "crop_share=0.0: give a share above 0, at most 1"),
        ({"crop_share": 1.1}, "crop_share=1.1: give a share above 0, at most 1"),
        ({"channels": 1}, "must have one value for each of channels=1"),
        ({"mean": (0.5,)}, r"mean=\(0.5,\) and std=\(0.5, 0.5, 0.5\) must have one value"),
        ({"std": (0.5, 0.0, 0.5)}, r"std=\(0.5, 0.0, 0.5\) must be above 0"),
    ],
    ids=str,
)
def test_a_value_that_can_t_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Preprocessing(size=(8, 8), **fields)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_preprocessing_comes_back_from_json(channels: int) -> None:
    wanted = default_preprocessing((24, 32), channels=channels, resize="squash", crop_share=0.875)
    assert preprocessing_from(json.loads(json.dumps(dataclasses.asdict(wanted)))) == wanted
    assert len(wanted.mean) == len(wanted.std) == channels
