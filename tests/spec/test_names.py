import dataclasses
import subprocess
import sys
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.errors import RequestError
from vitral.spec.names import (
    COMMON_NAMES,
    LONG_NAMES,
    VARIANTS,
    Variant,
    model_config,
    parse_model_name,
)

# Table 1 of the paper, the DeiT and Scaling ViT tables: width, depth, MLP, heads.
TABLE = {
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "H": (1280, 32, 5120, 16),
    "g": (1408, 40, 6144, 16),
    "G": (1664, 48, 8192, 16),
    "Mi": (128, 4, 512, 4),
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
}


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


@pytest.mark.parametrize("name", COMMON_NAMES)
def test_every_common_name_names_itself(name: str) -> None:
    config = model_config(name)
    assert config.name == name
    assert (
        Variant(config.embed_dim, config.depth, config.mlp_dim, config.num_heads)
        in VARIANTS.values()
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ViT-X/16", "did you mean 'ViT-"),
        ("vitt_b16", "did you mean 'ViT-B/16'"),
        ("bit-b/16", "did you mean 'ViT-B/16'"),
        ("vit_large16x", "did you mean 'ViT-L/16'"),
        ("deit_tiny", "use one of ViT-Mi/4, .*with any patch size|did you mean 'ViT-Ti/"),
        ("resnet50", "use one of ViT-Mi/4, .*with any patch size"),
        ("", "use one of"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(RequestError, match=f"there is no model '{name}': ({hint})"):
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


@given(st.text())
def test_any_text_is_a_name_or_a_wrong_request(text: str) -> None:
    try:
        assert model_config(text).name.startswith("ViT-")
    except RequestError as error:
        assert "\n" not in str(error) or "\n" in text


def test_what_is_said_without_torch_needs_no_torch() -> None:
    code = "import sys, vitral.spec.settings, vitral.files.rows; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
