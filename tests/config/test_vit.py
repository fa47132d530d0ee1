import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.config.model import config_from
from vitral.config.names import model_config
from vitral.config.resnet import V1_FIELDS, ResNetConfig
from vitral.config.vit import ViTConfig
from vitral.errors import RequestError

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
        ({"activation": "relu"}, "activation='relu' is not known: (use one of|did you mean)"),
        ({"activation": "gelu_tan"}, "did you mean 'gelu_tanh'"),
        ({"position": "3d"}, "position='3d' is not known: did you mean '2d'|1d"),
        ({"position_at": "stems"}, "position_at='stems' is not known: did you mean 'stem'"),
        ({"position_resize": "bicubik"}, "position_resize='bicubik' is not known: did you mean"),
        ({"attention": "axia"}, "attention='axia' is not known: did you mean 'axial'"),
        ({"drop_path": 1.0}, "drop_path=1.0 is a share"),
        ({"layer_scale": 0.0}, "layer_scale=0.0 must be above 0"),
        ({"num_registers": -1}, "num_registers=-1 must be 0 or more"),
        (
            {"class_token": False},
            "pool='token' reads the class token: leave class_token out, or use pool=gap",
        ),
        (
            {"class_token": False, "pool": "token+gap"},
            "pool='token.gap' reads the class token: leave class_token out",
        ),
        ({"pool": "token+register"}, "reads a register: set num_registers=1"),
        (
            {"pool": "token+gap", "norm_pooled": True},
            "norm_pooled: the last norm is as wide as a token, and pool='token.gap' gives twice",
        ),
        (
            {"position": "2d", "embed_dim": 15},
            "position='2d' splits embed_dim=15 into 2: use a multiple of 2",
        ),
        (
            {"position": "sincos2d", "embed_dim": 18},
            "position='sincos2d' splits embed_dim=18 into 4: use a multiple of 4",
        ),
        (
            {"position": "none", "position_at": "every"},
            "position_at='every' has no effect with position='none': leave it out",
        ),
        (
            {"position": "2d", "position_resize": "bicubic"},
            "position_resize='bicubic' has no effect with position='2d': leave it out",
        ),
        (
            {"relative_per_head": True},
            "relative_per_head has no effect with position='1d': leave it out",
        ),
        (
            {"attention": "axial", "position": "relative"},
            "position='relative' counts offsets over the whole grid, .* use 1d, 2d, sincos2d",
        ),
        (
            {"attention": "axial", "num_registers": 2},
            "num_registers=2: axial attention has no registers, leave it out",
        ),
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
    assert (config.uncovered_pixels_note() is None) == (
        (rows * patch[0], columns * patch[1]) == image
    )


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
    assert model_config(name, image_size=size).uncovered_pixels_note() == note


def test_one_number_stands_for_a_square() -> None:
    config = ViTConfig(**SMALL | {"image_size": 8})
    assert (config.image_size, config.patch_size) == ((8, 8), (4, 4))
    assert config == ViTConfig(**SMALL | {"image_size": (8, 8), "patch_size": (4, 4)})


@pytest.mark.parametrize(
    ("fields", "prefix", "width"),
    [
        ({"pool": "token"}, 1, 12),
        ({"pool": "gap"}, 0, 12),
        ({"pool": "map"}, 0, 12),
        ({"pool": "token", "representation_size": 5}, 1, 5),
        ({"pool": "gap", "representation_size": 7}, 0, 7),
        ({"pool": "token+gap"}, 1, 24),
        ({"pool": "token+register", "num_registers": 3}, 4, 24),
        ({"pool": "token+gap", "representation_size": 7}, 1, 7),
        ({"pool": "gap", "class_token": True, "num_registers": 2}, 3, 12),
        ({"pool": "map", "class_token": True}, 1, 12),
    ],
    ids=str,
)
def test_prefix_tokens_and_feature_width_follow_from_the_head(
    fields: dict[str, Any], prefix: int, width: int
) -> None:
    config = ViTConfig(**SMALL, **fields)
    assert (config.num_prefix_tokens, config.feature_dim) == (prefix, width)


def test_offsets_act_in_every_block_unless_shared() -> None:
    assert ViTConfig(**SMALL, position="relative").position_at == "every"
    assert ViTConfig(**SMALL, position="relative", position_at="shared").position_at == "shared"


@pytest.mark.parametrize(("attention", "branches"), [("full", 2), ("axial", 4)])
def test_an_axial_block_has_twice_the_branches(attention: str, branches: int) -> None:
    assert ViTConfig(**SMALL, pool="gap", attention=attention).num_branches == branches


STEM = ResNetConfig(name="stem", stages=(1, 1), width_factor=0.5, **V1_FIELDS)


def test_a_hybrid_s_resnet_takes_the_model_s_images_and_has_no_head() -> None:
    config = ViTConfig(
        **SMALL | {"patch_size": (1, 2)}, resnet=STEM, image_size=(33, 50), in_channels=2
    )
    assert config.resnet is not None
    assert (config.resnet.image_hw, config.resnet.in_channels) == ((33, 50), 2)
    assert config.resnet.num_classes == 0
    assert (config.map_hw, config.grid) == ((5, 7), (5, 3))
    assert config.uncovered_pixels_note() == (
        "patches of 1 x 2 do not tile the ResNet's map of 5 x 7: what is left at the bottom and "
        "right is left out; images with sides that 8 and 16 divide lose nothing"
    )


def test_patches_larger_than_the_resnet_s_map_are_refused_with_its_size() -> None:
    with pytest.raises(
        RequestError, match=r"image_size=\(16, 16\) gives a map of 2 x 2, smaller than patch_size="
    ):
        ViTConfig(**SMALL, resnet=STEM, image_size=16)


@pytest.mark.parametrize(
    "fields",
    [{}, {"image_size": (24, 40), "patch_size": (8, 4)}, {"patch_size": 1, "resnet": STEM}],
)
def test_a_config_comes_back_from_json(fields: dict[str, Any]) -> None:
    config = ViTConfig(**SMALL | fields)
    assert config_from(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_a_config_can_t_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ViTConfig(**SMALL).depth = 2  # type: ignore[misc]
