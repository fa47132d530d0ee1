import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.errors import RequestError
from vitral.spec.names import model_config
from vitral.spec.vit import ViTConfig, vit_config_from

SMALL: dict[str, Any] = {
    "name": "x", "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 3, "mlp_dim": 5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"num_heads": 5},
            "num_heads=5 does not divide embed_dim=12: use one of 1, 2, 3, 4, 6, 12",
        ),
        ({"image_size": 3}, r"image_size=\(3, 3\) is smaller than patch_size=\(4, 4\): use larger"),
        ({"image_size": (8, 3)}, "is smaller than patch_size"),
        ({"image_size": 0}, r"image_size=0: give a number of pixels, or \(height, width\)"),
        ({"image_size": (8,)}, r"image_size=\(8,\): give a number of pixels"),
        ({"image_size": (8, 8, 8)}, "give a number of pixels"),
        ({"image_size": 22.5}, "image_size=22.5: give a number of pixels"),
        ({"image_size": "8"}, "image_size=8: give a number of pixels"),
        ({"patch_size": -4}, "patch_size=-4: give a number of pixels"),
        ({"embed_dim": 0}, "embed_dim=0 must be above 0"),
        ({"depth": -1}, "depth=-1 must be above 0"),
        ({"mlp_dim": 0}, "mlp_dim=0 must be above 0"),
        ({"num_heads": 0}, "num_heads=0 must be above 0"),
        ({"in_channels": 0}, "in_channels=0 must be above 0"),
        ({"norm_eps": 0.0}, "norm_eps=0.0 must be above 0"),
        ({"norm_eps": float("nan")}, "norm_eps=nan must be above 0"),
        ({"num_classes": -1}, "num_classes=-1 must be 0 or more"),
        ({"representation_size": -1}, "representation_size=-1 must be 0 or more"),
        ({"dropout": 1.0}, "dropout=1.0 is a share: give 0 or more and less than 1"),
        ({"dropout": -0.1}, "dropout=-0.1 is a share"),
        ({"pool": "tokens"}, "pool='tokens' is not known: did you mean 'token'"),
        ({"activation": "swish"}, "activation='swish' is not known: use one of gelu_tanh, gelu"),
        ({"activation": "gelu_tan"}, "did you mean 'gelu_tanh'"),
    ],
    ids=str,
)
def test_a_value_that_can_t_be_is_refused_with_what_to_do(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        ViTConfig(**SMALL | fields)


sides = st.integers(1, 50)


@given(image=st.tuples(sides, sides), patch=st.tuples(sides, sides))
def test_the_grid_holds_the_patches_that_fit(
    image: tuple[int, int], patch: tuple[int, int]
) -> None:
    image = (image[0] + patch[0], image[1] + patch[1])
    config = ViTConfig(**SMALL | {"image_size": image, "patch_size": patch})
    rows, columns = config.grid
    assert rows * patch[0] <= image[0] < (rows + 1) * patch[0]
    assert columns * patch[1] <= image[1] < (columns + 1) * patch[1]
    assert config.num_patches == rows * columns
    assert (config.untiled_note() is None) == ((rows * patch[0], columns * patch[1]) == image)


@pytest.mark.parametrize(
    ("name", "size", "note"),
    [
        (
            "ViT-H/14", 384,
            "patches of 14 x 14 do not tile images of 384 x 384: 6 pixels at the bottom and 6 at "
            "the right are left out; 378 x 378 and 392 x 392 tile",
        ),
        (
            "ViT-B/16", (224, 250),
            "patches of 16 x 16 do not tile images of 224 x 250: 0 pixels at the bottom and 10 at "
            "the right are left out; 224 x 240 and 224 x 256 tile",
        ),
        ("ViT-B/16", 384, None),
    ],
)  # fmt: skip
def test_pixels_left_out_are_told_with_the_nearest_sizes_that_tile(
    name: str, size: int | tuple[int, int], note: str | None
) -> None:
    assert model_config(name, image_size=size).untiled_note() == note


def test_one_number_stands_for_a_square() -> None:
    config = ViTConfig(**SMALL | {"image_size": 8})
    assert (config.image_size, config.patch_size) == ((8, 8), (4, 4))
    assert config == ViTConfig(**SMALL | {"image_size": (8, 8), "patch_size": (4, 4)})


@pytest.mark.parametrize(
    ("pool", "representation", "prefix", "width"),
    [("token", 0, 1, 12), ("gap", 0, 0, 12), ("token", 5, 1, 5), ("gap", 7, 0, 7)],
)
def test_prefix_tokens_and_feature_width_follow_from_the_head(
    pool: str, representation: int, prefix: int, width: int
) -> None:
    config = ViTConfig(**SMALL, pool=pool, representation_size=representation)
    assert (config.num_prefix_tokens, config.feature_dim) == (prefix, width)


@pytest.mark.parametrize("fields", [{}, {"image_size": (24, 40), "patch_size": (8, 4)}])
def test_a_config_comes_back_from_json(fields: dict[str, Any]) -> None:
    config = ViTConfig(**SMALL | fields)
    assert vit_config_from(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_fields_that_no_vit_has_are_refused() -> None:
    with pytest.raises(
        RequestError, match="a ViT has no field 'layers': its fields are activation"
    ):
        vit_config_from(SMALL | {"layers": 3})


def test_a_config_can_t_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ViTConfig(**SMALL).depth = 2  # type: ignore[misc]
