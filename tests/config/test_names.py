import dataclasses
import re
import subprocess
import sys
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.config.names import model_config, parse_model_name
from vitral.config.variants import (
    AXIAL_STAGES,
    AXIAL_WIDTHS,
    COMMON_NAMES,
    LONG_NAMES,
    RESNET_STAGES,
    VARIANTS,
)
from vitral.errors import RequestError

# Table 1 of the paper, the DeiT and Scaling ViT tables, big_vision: width, depth, MLP, heads.
TABLE = {
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "H": (1280, 32, 5120, 16),
    "g": (1408, 40, 6144, 16),
    "G": (1664, 48, 8192, 16),
    "Mi": (128, 4, 512, 4),
    "mu": (32, 1, 128, 2),
    "M": (512, 12, 2048, 8),
    "So400m": (1152, 27, 4304, 16),
    "e": (1792, 56, 15360, 16),
}
SPELLINGS = {
    "ViT-B/16": ("ViT-B/16", "vit_b16", "ViT-B_16", "vit-b/16", "VIT B 16", "vitb16", "ViT_b/16 "),
    "ViT-B/32": ("vit-b/32", "vit_b_32", "vit_base_patch32", "ViT-b/32"),
    "ViT-S/32": ("ViT-S/32", "vit_small_patch32"),
    "ViT-g/14": ("ViT-g/14", "vit_g14", "vit_giant_patch14", "ViT_giant_patch14", "VIT-g-14"),
    "ViT-G/14": ("ViT-G/14", "vit_G14", "vit_gigantic_patch14", "vit-G/14"),
    "ViT-Ti/16": ("vit_ti16", "ViT-TI/16", "vit_tiny_patch16"),
    "ViT-H/14": ("vit_huge_patch14", "vit-h-14"),
    "ViT-L/7": ("vit_l7", "ViT-L/7"),
    "ViT-Mi/4": ("vit-mi/4", "vit_mini_patch4"),
    "ViT-So400m/14": ("vit_so400m_patch14", "vit-so400m/14", "ViT-SO400M_14"),
    "ViT-mu/16": ("vit_mu16",),
    "ViT-M/16": ("vit_medium_patch16", "vit-m/16"),
    "R50x1": ("R50x1", "r50x1", "resnetv2_50x1_bit", "BiT-R50x1", "BiT-M-R50x1", "bit_s_r50x1"),
    "R152x4": ("resnetv2_152x4_bit", "R152X4"),
    "R50x1+ViT-B/16": (
        "R50x1+ViT-B/16", "R50+ViT-B_16", "r50_vit_b16", "r50x1+vit-b/16", "vit_base_r50_s16",
        "R50 + ViT-B/16",
    ),
    "R50x1+ViT-L/32": ("R50+ViT-L_32", "vit_large_r50_s32"),
    "R26+S/32": ("R26+S/32", "R26+ViT-S_32", "vit_small_r26_s32", "r26_s_32"),
    "R26+B/32": ("R26+ViT-B_32",),
    "R+Ti/16": ("R+ViT-Ti_16", "vit_tiny_r_s16_p8", "r+ti/16"),
    "AxialViT-B/32": ("axialvit_b32", "Axial-ViT-B/32", "axial_vit_base_patch32"),
    "AxialResNet50s": ("axialresnet50s", "axial50s", "AxialResNet50", "axial-resnet-50-s"),
    "AxialResNet50l": ("axial50l", "AxialResNet-50l"),
}  # fmt: skip


@pytest.mark.parametrize("letter", TABLE)
def test_a_letter_stands_for_the_widths_of_the_papers(letter: str) -> None:
    assert dataclasses.astuple(VARIANTS[letter]) == TABLE[letter]


def test_no_letter_stands_for_more() -> None:
    assert set(VARIANTS) == set(TABLE)


@pytest.mark.parametrize(
    ("name", "spelling"), [(name, other) for name, others in SPELLINGS.items() for other in others]
)
def test_case_and_separators_do_not_matter_but_for_g(name: str, spelling: str) -> None:
    config = model_config(spelling)
    assert config.name == name
    assert config == model_config(name)


@given(
    letter=st.sampled_from([letter for letter in VARIANTS if letter not in "gG"]),
    patch=st.integers(1, 64),
    separators=st.tuples(*[st.sampled_from(["", "-", "_", "/", " "])] * 2),
    change_case=st.sampled_from([str, str.lower, str.upper, str.swapcase]),
)
def test_any_spelling_of_any_patch_size_is_understood(
    letter: str, patch: int, separators: tuple[str, str], change_case: type[str]
) -> None:
    spelling = change_case(f"ViT{separators[0]}{letter}{separators[1]}{patch}")
    parsed = parse_model_name(spelling)
    assert parsed["name"] == f"ViT-{letter}/{patch}"
    assert parsed["patch_size"] == patch
    assert "image_size" not in parsed


@pytest.mark.parametrize(
    ("long_name", "patch", "size"), list(product(LONG_NAMES, (8, 16), (224, 384)))
)
def test_timm_s_names_state_the_image_size(long_name: str, patch: int, size: int) -> None:
    config = model_config(f"vit_{long_name}_patch{patch}_{size}")
    assert config.name == f"ViT-{LONG_NAMES[long_name]}/{patch}"
    assert config.image_size == (size, size)


def test_a_field_stands_before_what_the_name_states() -> None:
    config = model_config("vit_base_patch16_384", image_size=(32, 48), embed_dim=24)
    assert (config.image_size, config.embed_dim, config.depth) == ((32, 48), 24, 12)


@pytest.mark.parametrize(
    "spelling",
    ["vit_tiny_r_s16_p8_384", "vit_small_r26_s32_384", "vit_base_r50_s16_384", "R26+S/32 384"],
)
def test_a_hybrid_s_name_may_state_the_image_size(spelling: str) -> None:
    config = model_config(spelling)
    assert config.image_size == config.resnet.image_size == (384, 384)


@pytest.mark.parametrize("name", COMMON_NAMES)
def test_every_common_name_names_itself(name: str) -> None:
    assert model_config(name).name == name


@pytest.mark.parametrize(
    ("name", "stages", "patch", "grid"),
    [
        ("R50x1+ViT-B/32", (3, 4, 6, 3), (1, 1), (7, 7)),
        ("R50x1+ViT-B/16", (3, 4, 9), (1, 1), (14, 14)),
        ("R50x1+ViT-L/32", (3, 4, 6, 3), (1, 1), (7, 7)),
        ("R50x1+ViT-L/16", (3, 4, 9), (1, 1), (14, 14)),
        ("R26+S/32", (2, 2, 2, 2), (1, 1), (7, 7)),
        ("R26+B/32", (2, 2, 2, 2), (1, 1), (7, 7)),
        ("R+Ti/16", (), (8, 8), (7, 7)),
        ("R50x2+ViT-B/16", (3, 4, 9), (1, 1), (14, 14)),
    ],
)
def test_a_hybrid_s_number_is_what_its_resnet_shrinks_images_by(
    name: str, stages: tuple[int, ...], patch: tuple[int, int], grid: tuple[int, int]
) -> None:
    config = model_config(name)
    assert (config.resnet.stages, config.patch_size, config.grid) == (stages, patch, grid)
    assert config.resnet.version == "v1"


def test_a_patch_of_two_places_is_a_free_choice() -> None:
    config = model_config("R50x1+ViT-B/16", patch_size=2)
    assert (config.resnet.stages, config.grid) == ((3, 4, 9), (7, 7))


@pytest.mark.parametrize("layers", RESNET_STAGES)
@pytest.mark.parametrize("width", [1, 3, 0.5])
def test_a_bit_resnet_has_its_layers_and_width(layers: int, width: float) -> None:
    config = model_config(f"R{layers}x{width}")
    assert (config.stages, config.width_factor) == (RESNET_STAGES[layers], width)


@pytest.mark.parametrize(("layers", "letter"), [*product(AXIAL_STAGES, AXIAL_WIDTHS)])
def test_an_axial_resnet_has_its_layers_and_the_width_of_its_letter(
    layers: int, letter: str
) -> None:
    config = model_config(f"AxialResNet{layers}{letter}")
    assert (config.stages, config.width_factor) == (AXIAL_STAGES[layers], AXIAL_WIDTHS[letter])
    assert config.num_groups == 8


def test_an_axial_vit_averages_its_patches() -> None:
    config = model_config("AxialViT-B/32")
    assert (config.attention, config.pool, config.class_token) == ("axial", "gap", False)
    assert model_config("AxialViT-B/32", pool="token").class_token


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ViT-X/16", "did you mean 'ViT-"),
        ("vitt_b16", "did you mean 'ViT-B/16'"),
        ("bit-b/16", "did you mean 'ViT-B/16'"),
        ("vit_large16x", "did you mean 'ViT-L/16'"),
        ("deit_tiny", "use one of ViT-Mi/4, .*with any patch size|did you mean 'ViT-Ti/"),
        ("resnet50", "use one of ViT-Mi/4, .*with any patch size|did you mean '"),
        ("R51x1", "did you mean 'R50x1'"),
        ("R50x1+ViT-B/8", "did you mean 'R50x1.ViT-B/"),
        ("R50x1+ViT-X/16", "did you mean 'R50x1.ViT-"),
        ("R+Ti/15", "did you mean 'R.Ti/16'"),
        ("AxialResNet51", "did you mean 'AxialResNet50"),
        ("AxialViT-Q/16", "did you mean 'AxialViT-"),
        ("resnetv2_33x1_bit", ""),
        ("", "use one of"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(RequestError, match=f"there is no model '{re.escape(name)}': ({hint})"):
        model_config(name)


@pytest.mark.parametrize(
    ("field", "near"),
    [("classes", "num_classes"), ("img_size", "image_size"), ("heads", "num_heads")],
)
def test_an_unknown_field_suggests_the_nearest(field: str, near: str) -> None:
    with pytest.raises(RequestError, match=f"a ViT has no field '{field}': did you mean '{near}'"):
        model_config("ViT-B/16", **{field: 1})


def test_a_field_like_nothing_lists_those_that_there_are() -> None:
    with pytest.raises(RequestError, match="has no field 'qqq': use one of patch_size, embed_dim"):
        model_config("ViT-B/16", qqq=1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("R50x1", "ResNet"), ("AxialResNet50s", "AxialResNet"), ("R26+S/32", "ViT")],
)
def test_each_kind_of_model_names_itself_when_it_has_no_such_field(name: str, kind: str) -> None:
    with pytest.raises(RequestError, match=f"a {kind} has no field 'embed_width'"):
        model_config(name, embed_width=3)


def test_a_width_that_the_groups_do_not_divide_is_refused() -> None:
    with pytest.raises(RequestError, match="width_factor=0.3 gives 19.2 channels"):
        model_config("R50x0.3")


@given(st.text())
def test_any_text_is_a_name_or_a_wrong_request(text: str) -> None:
    try:
        assert model_config(text).name
    except RequestError as error:
        assert "\n" not in str(error) or "\n" in text


def test_what_is_said_without_torch_needs_no_torch() -> None:
    code = "import sys, vitral.config.settings, vitral.files.rows; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
