import dataclasses
from typing import Any

import pytest
import torch

import vitral
from vitral.config.model import ModelConfig
from vitral.config.names import model_config
from vitral.config.variants import AXIAL_STAGES, AXIAL_WIDTHS, COMMON_NAMES, RESNET_STAGES, VARIANTS
from vitral.config.vit import ViTConfig
from vitral.errors import RequestError
from vitral.models.axial_resnet import AxialResNet
from vitral.models.build import build_model
from vitral.models.model import Model
from vitral.models.resnet import ResNet
from vitral.models.vit import ViT

# ViTs: counted from the official code (the trunk; with a head of 1000; the trunk with pre_logits),
# and M, mu, e from big_vision's; Mi, patches of 8 and So400m by the formula below.
VIT_COUNTS = {
    "ViT-mu/16": (43_712, None, None),
    "ViT-Ti/16": (5_524_416, 5_717_416, 5_561_472),
    "ViT-S/16": (21_665_664, 22_050_664, 21_813_504),
    "ViT-S/32": (22_493_952, 22_878_952, 22_641_792),
    "ViT-B/8": (85_807_872, 86_576_872, None),
    "ViT-B/16": (85_798_656, 86_567_656, 86_389_248),
    "ViT-B/32": (87_455_232, 88_224_232, None),
    "ViT-L/16": (303_301_632, 304_326_632, 304_351_232),
    "ViT-L/32": (305_510_400, 306_535_400, 306_560_000),
    "ViT-So400m/14": (412_444_656, 413_597_656, None),
    "ViT-H/14": (630_764_800, 632_045_800, 632_404_480),
    "ViT-g/14": (1_011_202_432, 1_012_611_432, None),
    "ViT-G/14": (1_842_775_680, 1_844_440_680, None),
}
# BiT ResNets: the trunk, with heads of 1000 and 21,843 classes (big_transfer).
BIT_COUNTS = {
    "R50x1": (23_500_352, 25_549_352, 68_256_659),
    "R50x2": (93_891_712, 97_988_712, 183_382_483),
    "R50x3": (211_174_080, 217_319_080, 345_399_315),
    "R101x1": (42_492_480, 44_541_480, 87_248_787),
    "R101x3": (381_789_888, 387_934_888, 516_015_123),
    "R152x1": (58_136_128, 60_185_128, 102_892_435),
    "R152x2": (232_238_208, 236_335_208, 321_728_979),
    "R152x4": (928_340_224, 936_533_224, 1_107_299_923),
    "R200x3": (562_488_000, 568_633_000, 696_713_235),
}
# The trunk of hybrids (official code), and AxialViT's (one table of positions, mean of patches).
TRUNK_COUNTS = {
    "R50x1+ViT-B/32": 110_176_832,
    "R50x1+ViT-B/16": 97_890_112,
    "R50x1+ViT-L/32": 327_969_856,
    "R50x1+ViT-L/16": 315_458_624,
    "R26+S/32": 36_046_912,
    "R26+B/32": 100_614_976,
    "R+Ti/16": 6_144_704,
    "AxialViT-B/32": 172_508_160,
    "AxialViT-B/16": 170_851_584,
}
# With a head of 1000 (axial-deeplab).
AXIAL_RESNET_COUNTS = {
    "AxialResNet26s": 5_944_936,
    "AxialResNet50s": 11_586_216,
    "AxialResNet50m": 25_179_400,
    "AxialResNet50l": 43_973_480,
}

Fields = dict[str, Any]


def build_empty(name: str, **fields: Any) -> Model:
    with torch.device("meta"):
        return vitral.create_model(name, **fields)


def count_parameters(model: Model, *, below_head: bool = False) -> int:
    names = ("head.",) if below_head else ()
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith(names))


TRUNKS = {name: counts[0] for name, counts in (VIT_COUNTS | BIT_COUNTS).items()} | TRUNK_COUNTS
WITH_HEAD = {
    name: counts[1] for name, counts in (VIT_COUNTS | BIT_COUNTS).items() if counts[1]
} | AXIAL_RESNET_COUNTS


@pytest.mark.parametrize("name", TRUNKS | WITH_HEAD)
def test_parameters_are_as_many_as_in_the_original_models(name: str) -> None:
    model = build_empty(name)
    trunk = count_parameters(model, below_head=True)
    assert trunk == TRUNKS.get(name, trunk)
    assert count_parameters(model) == WITH_HEAD.get(name, count_parameters(model))
    assert count_parameters(model) - trunk == 1000 * (model.config.feature_dim + 1)
    of_21k = trunk + 21_843 * (model.config.feature_dim + 1)
    assert of_21k == (BIT_COUNTS[name][2] if name in BIT_COUNTS else of_21k)


@pytest.mark.parametrize(
    ("name", "count"), [(name, counts[2]) for name, counts in VIT_COUNTS.items() if counts[2]]
)
def test_pre_logits_are_as_wide_as_the_tokens_in_the_paper_s_counts(name: str, count: int) -> None:
    width = model_config(name).embed_dim
    assert count_parameters(build_empty(name, num_classes=0, representation_size=width)) == count


EVERY_NAME = [
    *dict.fromkeys(
        (
            *COMMON_NAMES,
            *(f"ViT-{letter}/16" for letter in VARIANTS),
            *(f"R{layers}x1" for layers in RESNET_STAGES),
            *(f"AxialResNet{layers}{s}" for layers in AXIAL_STAGES for s in AXIAL_WIDTHS),
        )
    )
]


def shallow(config: ModelConfig) -> ModelConfig:
    """Return a config with one block, and one unit a stage: the others have the same shapes."""
    if isinstance(config, ViTConfig):
        stem = config.resnet and shallow(config.resnet)
        return dataclasses.replace(config, depth=1, resnet=stem)
    return dataclasses.replace(config, stages=(1,) * len(config.stages))


@pytest.mark.parametrize("name", EVERY_NAME)
@torch.no_grad()
def test_every_named_model_maps_images_of_any_ratio_to_features_and_logits(name: str) -> None:
    for size, classes in (((224, 224), 1000), ((160, 256), 7)):
        config = model_config(name, image_size=size, num_classes=classes)
        assert (config.name, config.image_hw) == (name, size)
        with torch.device("meta"):
            model = build_model(shallow(config))
            features = model.features(torch.empty(2, 3, *size))
        assert features.shape == (2, config.feature_dim)
        assert model.classify(features).shape == (2, classes)


# The patches of a ViT must tile and the maps of the others halve for the table to count all tokens.
@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [
        ("ViT-B/16", (224, 320), (14, 20)),
        ("R50x1+ViT-B/16", (224, 320), (14, 20)),
        ("R50x1", (224, 320), (7, 10)),
        ("R+Ti/16", (224, 320), (7, 10)),
        ("AxialViT-B/32", (224, 320), (7, 10)),
    ],
)
def test_the_grid_is_rows_then_columns(
    name: str, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    assert build_empty(name, image_size=size).config.grid == grid


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("vit_b16", ViT), ("R50x1+ViT-B/16", ViT), ("AxialViT-B/32", ViT), ("R50x1", ResNet),
        ("AxialResNet50s", AxialResNet),
    ],
)  # fmt: skip
def test_create_model_builds_what_the_name_and_fields_say(name: str, family: type[Model]) -> None:
    model = build_empty(name, num_classes=10, image_size=(224, 320), in_channels=2)
    assert type(model) is family
    assert (model.config.num_classes, model.config.image_hw) == (10, (224, 320))
    assert model.preprocessing.channels == 2
    assert model.classes is model.load_report is model.reference is None


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_fresh_model_wants_values_from_minus_one_to_one(channels: int) -> None:
    wanted = build_empty("ViT-Mi/4", image_size=(8, 12), in_channels=channels).preprocessing
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
def test_a_bad_field_is_refused_before_anything_is_built(fields: Fields, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        vitral.create_model("ViT-B/16", **fields)
