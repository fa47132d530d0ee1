import pytest
import torch

import vitral
from vitral.errors import RequestError


def test_create_model_builds_what_the_name_and_fields_say() -> None:
    with torch.device("meta"):
        model = vitral.create_model("vit_b16", num_classes=10, image_size=(224, 320), pool="gap")
    assert (model.config.name, model.config.num_classes) == ("ViT-B/16", 10)
    assert (model.config.grid, model.num_prefix_tokens) == ((14, 20), 0)
    assert model.classes is None


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_fresh_model_wants_values_from_minus_one_to_one(channels: int) -> None:
    with torch.device("meta"):
        model = vitral.create_model("ViT-Mi/4", image_size=(8, 12), in_channels=channels)
    wanted = model.preprocessing
    assert (wanted.size, wanted.channels) == ((8, 12), channels)
    assert wanted.mean == wanted.std == (0.5,) * channels


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_head": 3}, "a ViT has no field 'num_head': did you mean 'num_heads'"),
        ({"num_heads": 5}, "num_heads=5 does not divide embed_dim=768: use one of 1, 2, 3, 4, 6"),
        ({"pool": "gape"}, "pool='gape' is not known: did you mean 'gap'"),
    ],
)
def test_a_bad_field_is_refused_before_anything_is_built(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        vitral.create_model("ViT-B/16", **fields)
