import dataclasses
import json
from typing import Any

import pytest

from vitral.config.model import FAMILIES, config_from, family_of
from vitral.config.names import model_config
from vitral.config.variants import COMMON_NAMES
from vitral.errors import RequestError


@pytest.mark.parametrize("name", COMMON_NAMES)
def test_every_config_comes_back_from_json(name: str) -> None:
    config = model_config(name, image_size=(64, 96), in_channels=2)
    assert config_from(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize("fields", [{"depth": 3, "name": "x"}, {}])
def test_fields_of_no_family_are_refused(fields: dict[str, Any]) -> None:
    given = ", ".join(sorted(fields)) or "none"
    with pytest.raises(
        RequestError,
        match=f"a model needs one of the fields patch_size, num_groups, stages, given were {given}",
    ):
        family_of(fields)


@pytest.mark.parametrize("name", ["ViT-B/16", "R50x1", "AxialResNet50s", "R26+S/32"])
def test_a_field_that_the_family_does_not_have_suggests_the_nearest(name: str) -> None:
    fields = dataclasses.asdict(model_config(name))
    family = family_of(fields).__name__
    with pytest.raises(
        RequestError, match=f"{family} has no field 'num_clases': did you mean 'num_classes'"
    ):
        config_from(fields | {"num_clases": 3})


@pytest.mark.parametrize(("own", "needed"), [("patch_size", "name"), ("stages", "name")])
def test_a_field_without_a_default_is_asked_for(own: str, needed: str) -> None:
    with pytest.raises(RequestError, match=f"{FAMILIES[own].__name__} needs the field '{needed}'"):
        config_from({own: 4})
