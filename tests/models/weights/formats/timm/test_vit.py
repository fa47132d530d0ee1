import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitral.config.resnet import V1_FIELDS, ResNetConfig
from vitral.errors import ModelFileError, RequestError
from vitral.models.build import create_model
from vitral.models.model import Model
from vitral.models.vit import ViT
from vitral.models.weights.load import load_model
from vitral.models.weights.save import save_model

Arrays = dict[str, np.ndarray]
Tensors = dict[str, Tensor]
Reference = Callable[[str], Arrays]
Convert = Callable[[np.ndarray], Tensor]
Build = Callable[..., ViT]

HEADS = {"timm_vit_small48": 3, "timm_vit_gap": 3, "timm_vit_hybrid_r": 4}
TOLERANCES = {
    "timm_vit_small48": 1e-5, "timm_vit_gap": 1e-5, "timm_vit_hybrid_r": 3e-5,
    "timm_resnetv2_bit": 3e-5,
}  # fmt: skip
FIXTURES = list(TOLERANCES)


def stated(name: str) -> dict[str, Any]:
    """Return what a bare file does not tell."""
    return {"num_heads": HEADS[name]} if name in HEADS else {"image_size": 64}


@pytest.fixture
def tensors(reference: Reference) -> Callable[[str], Tensors]:
    def read(name: str) -> Tensors:
        arrays = reference(f"{name}.weights")
        return {key: torch.from_numpy(array) for key, array in arrays.items()}

    return read


@torch.no_grad()
def largest_difference(model: Model, expected: Arrays, images: Tensor) -> float:
    """Compare everything that the original gave."""
    ours = {"logits": model(images), "pre_logits": model.features(images)}
    if isinstance(model, ViT):
        ours["features"] = model.tokens(images)
        ours["patch_embed"] = model.embed(images)
    else:
        ours["features_nchw"] = model.trunk(images)
    names = set(ours) & set(expected)
    assert len(names) >= 3
    assert all(ours[name].shape == expected[name].shape for name in names)
    return max(float((ours[n] - torch.from_numpy(expected[n])).abs().max()) for n in names)


@pytest.mark.parametrize("name", FIXTURES)
def test_outputs_agree_with_timm(
    shared: Path, reference: Reference, nchw: Convert, name: str
) -> None:
    expected = reference(f"{name}.io")
    model = load_model(shared / "reference" / f"{name}.weights.npz", **stated(name))
    assert largest_difference(model, expected, nchw(expected["image_nhwc"])) <= TOLERANCES[name]


def prefixed(tensors: Tensors, prefix: str) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


WAYS: dict[str, Callable[[Tensors], dict[str, Any]]] = {
    "bare": lambda tensors: tensors,
    "model": lambda tensors: {"model": tensors, "epoch": 3, "optimizer": {"state": {}}},
    "state dict of a parallel run": lambda tensors: {"state_dict": prefixed(tensors, "module.")},
    "teacher": lambda tensors: {"teacher": prefixed(tensors, "backbone."), "student": {}},
    "compiled": lambda tensors: prefixed(tensors, "_orig_mod."),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FIXTURES)
def test_torch_checkpoints_are_read_whatever_is_around_them(
    reference: Reference,
    tensors: Callable[[str], Tensors],
    nchw: Convert,
    tmp_path: Path,
    name: str,
    way: str,
) -> None:
    expected = reference(f"{name}.io")
    torch.save(WAYS[way](tensors(name)), tmp_path / "weights.pth")
    model = load_model(tmp_path / "weights.pth", **stated(name))
    assert largest_difference(model, expected, nchw(expected["image_nhwc"])) <= TOLERANCES[name]
    assert model.load_report.format == "timm"
    assert model.load_report.left_over == ()


@pytest.mark.parametrize("name", FIXTURES)
def test_theirs_to_ours_to_theirs_changes_no_array(
    tensors: Callable[[str], Tensors], tmp_path: Path, name: str
) -> None:
    theirs = tensors(name)
    save_file(theirs, tmp_path / "theirs.safetensors")
    model = load_model(tmp_path / "theirs.safetensors", **stated(name))
    save_model(model, tmp_path / "again.safetensors", format="timm")
    assert_equal(load_file(tmp_path / "again.safetensors"), theirs)


def assert_equal(ours: Tensors, theirs: Tensors) -> None:
    assert sorted(ours) == sorted(theirs)
    for name, tensor in theirs.items():
        assert ours[name].shape == tensor.shape, name
        assert torch.equal(ours[name], tensor), name


STEM = ResNetConfig(
    name="R", stages=(1, 1), width_factor=0.5,
    **V1_FIELDS | {"norm_eps": 1e-5, "standardization": "variance", "standardization_eps": 1e-8},
)  # fmt: skip
ROOT = ResNetConfig(**vars(STEM) | {"stages": (), "width_factor": 1.0, "name": "R"})
# What the tensors tell by themselves, then what only config.json or our own header does.
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "square": {"image_size": 32},
    "wide patches": {"patch_size": (12, 8)},
    "grey": {"in_channels": 1},
    "registers": {"num_registers": 3},
    "registers without class token": {"num_registers": 2, "pool": "gap"},
    "gap": {"pool": "gap"},
    "gap with fc_norm": {"pool": "gap", "norm_pooled": True},
    "fc_norm beside a class token": {"pool": "gap", "norm_pooled": True, "class_token": True},
    "map": {"pool": "map"},
    "layer scale": {"layer_scale": 0.1},
    "QK-norm": {"qk_norm": True},
    "distilled": {"pool": "token+register", "num_registers": 1},
    "swiglu": {"activation": "swiglu"},
    "swiglu with layer scale": {"activation": "swiglu", "layer_scale": 1e-5},
    "no head": {"num_classes": 0},
    "root below": {"resnet": ROOT, "patch_size": 2},
}
CONFIGS_TOLD = {
    "no positions": {"position": "none", "position_resize": "bilinear_corners"},
    "tanh": {"activation": "gelu_tanh"},
    "a class token that is not read": {"pool": "gap", "class_token": True},
    "map over prefix tokens": {"pool": "map", "class_token": True, "num_registers": 2},
    "fc_norm over the class token": {"norm_pooled": True},
}
UNNAMED = {
    "ResNet below": {"resnet": STEM, "patch_size": 1},
    "ResNet below that rounds up": {"resnet": STEM, "patch_size": 1, "image_size": (21, 30)},
}


@pytest.fixture
def build(small_model: Build) -> Build:
    def build_model(**fields: object) -> ViT:
        usual = {"activation": "gelu", "position_resize": "bicubic_antialias"}
        return small_model(**usual | fields)

    return build_model


def draw_images(model: Model) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, model.config.in_channels, *model.config.image_hw, generator=generator)


def assert_same(ours: Model, other: Model) -> None:
    """Compare two models bit by bit."""
    assert_equal(other.state_dict(), ours.state_dict())
    images = draw_images(ours)
    with torch.no_grad():
        assert torch.equal(ours(images), other(images))


@pytest.mark.parametrize("case", {**CONFIGS, **CONFIGS_TOLD, **UNNAMED})
def test_a_file_of_ours_is_read_back_as_it_was(build: Build, tmp_path: Path, case: str) -> None:
    model = build(**{**CONFIGS, **CONFIGS_TOLD, **UNNAMED}[case])
    model.classes = ("a", "b", "c", "d", "e") if model.config.num_classes else None
    save_model(model, tmp_path / "model.safetensors", format="timm")
    loaded = load_model(tmp_path / "model.safetensors")
    assert (loaded.config, loaded.classes) == (model.config, model.classes)
    assert loaded.preprocessing == model.preprocessing
    assert_same(model, loaded)


def without_header(path: Path) -> Path:
    """Take away our own description, as if timm had written the file."""
    save_file(load_file(path), path)
    return path


@pytest.mark.parametrize("case", {**CONFIGS, **UNNAMED})
def test_bare_tensors_tell_the_architecture(build: Build, tmp_path: Path, case: str) -> None:
    model = build(**{**CONFIGS, **UNNAMED}[case])
    save_model(model, tmp_path / "weights.safetensors", format="timm")
    path = without_header(tmp_path / "weights.safetensors")
    loaded = load_model(path, num_heads=2, image_size=model.config.image_size)
    assert_same(model, loaded)
    assert loaded.config.norm_pooled == model.config.norm_pooled


@pytest.mark.parametrize("case", {**CONFIGS, **CONFIGS_TOLD})
def test_the_config_that_is_written_tells_everything(
    build: Build, tmp_path: Path, case: str
) -> None:
    model = build(**{**CONFIGS, **CONFIGS_TOLD}[case])
    model.classes = ("a", "b", "c", "d", "e") if model.config.num_classes else None
    save_model(model, tmp_path / "model", format="timm")
    without_header(tmp_path / "model" / "model.safetensors")
    loaded = load_model(tmp_path / "model")
    differing = {
        field
        for field, value in vars(model.config).items()
        if getattr(loaded.config, field) != value and field not in ("name", "resnet")
    }
    assert differing == set()
    assert (loaded.classes, loaded.preprocessing) == (model.classes, model.preprocessing)
    assert_same(model, loaded)


def small_bit(**fields: Any) -> Model:
    torch.manual_seed(3)
    usual = {"image_size": (33, 47), "num_classes": 5, "standardization_eps": 1e-8}
    model = create_model("R14x0.5", **usual | fields)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


@pytest.mark.parametrize("num_classes", [0, 5])
def test_a_bit_resnet_is_read_back_as_it_was(tmp_path: Path, num_classes: int) -> None:
    model = small_bit(num_classes=num_classes)
    save_model(model, tmp_path / "bit.safetensors", format="timm")
    loaded = load_model(tmp_path / "bit.safetensors")
    assert loaded.config == model.config
    assert_same(model, loaded)
    bare = load_model(without_header(tmp_path / "bit.safetensors"), image_size=(33, 47))
    assert bare.config == model.config
    assert_same(model, bare)


def test_a_bit_resnet_that_timm_names_has_its_config(tmp_path: Path) -> None:
    model = create_model("R50x1", image_size=64, num_classes=2, standardization_eps=1e-8)
    model.classes = ("cat", "dog")
    save_model(model, tmp_path / "bit", format="timm")
    written = json.loads((tmp_path / "bit" / "config.json").read_text())
    assert (written["architecture"], written["num_classes"]) == ("resnetv2_50x1_bit", 2)
    assert "model_args" not in written
    assert written["pretrained_cfg"]["classifier"] == "head.fc"
    without_header(tmp_path / "bit" / "model.safetensors")
    loaded = load_model(tmp_path / "bit")
    assert (loaded.config, loaded.classes) == (model.config, ("cat", "dog"))


# Positions in timm's two layouts.


@torch.no_grad()
def test_a_table_without_a_row_for_the_class_token_means_the_same(
    reference: Reference, tensors: Callable[[str], Tensors], nchw: Convert, tmp_path: Path
) -> None:
    expected, theirs = reference("timm_vit_small48.io"), tensors("timm_vit_small48")
    theirs["cls_token"] = theirs["cls_token"] + theirs["pos_embed"][:, :1]
    theirs["pos_embed"] = theirs["pos_embed"][:, 1:].clone()
    save_file(theirs, tmp_path / "model.safetensors")
    model = load_model(tmp_path / "model.safetensors", num_heads=3)
    assert not model.positions[0].table[:, 0].any()
    assert largest_difference(model, expected, nchw(expected["image_nhwc"])) <= 1e-5
    save_model(model, tmp_path / "again", format="timm")
    assert_equal(load_file(tmp_path / "again" / "model.safetensors"), theirs)
    arguments = json.loads((tmp_path / "again" / "config.json").read_text())["model_args"]
    assert arguments["no_embed_class"] is True


def test_registers_without_rows_survive_the_way_through_us(
    tensors: Callable[[str], Tensors], tmp_path: Path
) -> None:
    theirs = tensors("timm_vit_small48")
    theirs["pos_embed"] = theirs["pos_embed"][:, 1:].clone()
    theirs["reg_token"] = torch.randn(1, 4, 48)
    save_file(theirs, tmp_path / "theirs.safetensors")
    model = load_model(tmp_path / "theirs.safetensors", num_heads=3)
    assert (model.config.num_registers, model.config.grid) == (4, (4, 4))
    save_model(model, tmp_path / "again.safetensors", format="timm")
    assert_equal(load_file(tmp_path / "again.safetensors"), theirs)


@pytest.mark.parametrize(
    ("token", "fields"),
    [
        ("reg_token", {"num_registers": 3}),
        ("dist_token", {"num_registers": 1, "pool": "token+register"}),
    ],
)
@torch.no_grad()
def test_rows_of_registers_are_added_to_them(
    build: Build, tmp_path: Path, token: str, fields: dict[str, Any]
) -> None:
    model = build(**fields)
    save_model(model, tmp_path / "ours.safetensors", format="timm")
    theirs = load_file(tmp_path / "ours.safetensors")
    count = model.config.num_registers
    assert theirs["pos_embed"].shape[1] == 1 + count + 12
    assert not theirs["pos_embed"][:, 1 : 1 + count].any()
    rows = torch.randn(1, count, 16)
    theirs[token] = theirs[token] - rows
    theirs["pos_embed"][:, 1 : 1 + count] = rows
    save_file(theirs, tmp_path / "theirs.safetensors")
    loaded = load_model(tmp_path / "theirs.safetensors", num_heads=2, image_size=(24, 32))
    images = draw_images(model)
    assert torch.allclose(loaded(images), model(images), atol=1e-5)
    assert torch.allclose(loaded.registers, model.registers, atol=1e-6)


def test_without_a_class_token_registers_get_no_rows(build: Build, tmp_path: Path) -> None:
    save_model(build(num_registers=2, pool="gap"), tmp_path / "model", format="timm")
    written = load_file(tmp_path / "model" / "model.safetensors")
    assert written["pos_embed"].shape == (1, 12, 16)
    arguments = json.loads((tmp_path / "model" / "config.json").read_text())["model_args"]
    assert (arguments["no_embed_class"], arguments["reg_tokens"]) == (True, 2)


# Parts that no file of the original is there for.


@torch.no_grad()
def test_a_distilled_model_has_the_mean_of_two_heads(build: Build, tmp_path: Path) -> None:
    model = build(num_registers=1, pool="token+register")
    save_model(model, tmp_path / "model", format="timm")
    theirs = load_file(tmp_path / "model" / "model.safetensors")
    theirs["head_dist.bias"] = torch.randn(5)
    save_file(theirs, tmp_path / "theirs.safetensors")
    loaded = load_model(tmp_path / "theirs.safetensors", num_heads=2, image_size=(24, 32))
    images = draw_images(model)
    first, second = loaded.tokens(images)[:, :2].unbind(1)
    one = F.linear(first, theirs["head.weight"], theirs["head.bias"])
    two = F.linear(second, theirs["head_dist.weight"], theirs["head_dist.bias"])
    assert torch.allclose(loaded(images), (one + two) / 2, atol=1e-5)
    assert loaded.preprocessing.mean == (0.485, 0.456, 0.406)
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert written["architecture"] == "deit_base_distilled_patch16_224"
    assert written["pretrained_cfg"]["classifier"] == ["head", "head_dist"]
    assert "reg_tokens" not in written["model_args"]


def test_attention_pooling_has_queries_apart_from_keys_and_values(
    build: Build, tmp_path: Path
) -> None:
    model = build(pool="map")
    save_model(model, tmp_path / "model.safetensors", format="timm")
    theirs, pool = load_file(tmp_path / "model.safetensors"), model.attention_pool
    assert torch.equal(theirs["attn_pool.latent"], pool.probe)
    assert torch.equal(theirs["attn_pool.q.weight"], pool.attention.qkv.weight[:16])
    assert torch.equal(theirs["attn_pool.kv.weight"], pool.attention.qkv.weight[16:])
    assert torch.equal(theirs["attn_pool.kv.bias"], pool.attention.qkv.bias[16:])
    assert torch.equal(theirs["attn_pool.proj.weight"], pool.attention.out.weight)
    assert torch.equal(theirs["attn_pool.mlp.fc2.weight"], pool.mlp.out.weight)


@torch.no_grad()
def test_the_first_half_of_a_gated_mlp_is_the_gate(build: Build, tmp_path: Path) -> None:
    model = build(activation="swiglu")
    save_model(model, tmp_path / "model.safetensors", format="timm")
    theirs, tokens = load_file(tmp_path / "model.safetensors"), torch.randn(2, 5, 16)
    block = "blocks.1.mlp"
    hidden = F.linear(tokens, theirs[f"{block}.fc1.weight"], theirs[f"{block}.fc1.bias"])
    gated = F.silu(hidden[..., :24]) * hidden[..., 24:]
    out = F.linear(gated, theirs[f"{block}.fc2.weight"], theirs[f"{block}.fc2.bias"])
    assert torch.allclose(model.blocks[1].mlp(tokens), out, atol=1e-6)


@torch.no_grad()
def test_pre_logits_of_old_files_are_read(build: Build, tmp_path: Path) -> None:
    save_model(build(), tmp_path / "ours.safetensors", format="timm")
    theirs = load_file(tmp_path / "ours.safetensors")
    theirs |= {"pre_logits.fc.weight": torch.randn(16, 16), "pre_logits.fc.bias": torch.randn(16)}
    save_file(theirs, tmp_path / "theirs.safetensors")
    model = load_model(tmp_path / "theirs.safetensors", num_heads=2, image_size=(24, 32))
    images = draw_images(model)
    pooled = model.tokens(images)[:, 0]
    wanted = F.linear(pooled, theirs["pre_logits.fc.weight"], theirs["pre_logits.fc.bias"]).tanh()
    assert torch.allclose(model.features(images), wanted, atol=1e-6)


def test_biases_that_are_left_out_are_zeros(build: Build, tmp_path: Path) -> None:
    save_model(build(), tmp_path / "ours.safetensors", format="timm")
    theirs = load_file(tmp_path / "ours.safetensors")
    stripped = {name: tensor for name, tensor in theirs.items() if "qkv.bias" not in name}
    save_file(stripped, tmp_path / "theirs.safetensors")
    model = load_model(tmp_path / "theirs.safetensors", num_heads=2, image_size=(24, 32))
    assert not model.blocks[2].attention.qkv.bias.any()
    assert torch.equal(model.blocks[2].attention.qkv.weight, theirs["blocks.2.attn.qkv.weight"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pos_embed", "is no ViT of timm: it has no pos_embed"),
        ("blocks.0.mlp.fc2.weight", "is no ViT of timm: it has no blocks.0.mlp.fc2.weight"),
        ("blocks.1.attn.qkv.bias", "lacks 1 tensors of the model, such as blocks.1.attention.qkv"),
        ("norm.weight", "lacks 1 tensors of the model, such as norm.weight"),
    ],
)
def test_a_missing_tensor_is_named(
    tensors: Callable[[str], Tensors], tmp_path: Path, name: str, message: str
) -> None:
    theirs = tensors("timm_vit_small48")
    del theirs[name]
    save_file(theirs, tmp_path / "x.safetensors")
    with pytest.raises(ModelFileError, match=message):
        load_model(tmp_path / "x.safetensors", num_heads=3)


def test_the_layer_scale_of_deit_3_is_read(build: Build, tmp_path: Path) -> None:
    model = build(layer_scale=0.1)
    save_model(model, tmp_path / "ours.safetensors", format="timm")
    theirs = load_file(tmp_path / "ours.safetensors")
    renamed = {
        name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): tensor
        for name, tensor in theirs.items()
    }
    save_file(renamed, tmp_path / "theirs.safetensors")
    loaded = load_model(tmp_path / "theirs.safetensors", num_heads=2, image_size=(24, 32))
    assert_same(model, loaded)


@torch.no_grad()
def test_a_distilled_model_keeps_rows_that_are_zeros(build: Build, tmp_path: Path) -> None:
    model = build(num_registers=1, pool="token+register")
    model.positions[0].table[:, 0] = 0
    save_model(model, tmp_path / "model.safetensors", format="timm")
    assert load_file(tmp_path / "model.safetensors")["pos_embed"].shape == (1, 2 + 12, 16)


def test_a_gated_mlp_is_built_from_a_giant_without_its_layer_scale(
    build: Build, tmp_path: Path
) -> None:
    save_model(build(activation="swiglu"), tmp_path / "model", format="timm")
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert written["architecture"] == "vit_giant_patch14_dinov2"
    arguments = written["model_args"]
    assert (arguments["init_values"], arguments["mlp_ratio"]) == (0.0, 3.0)
    assert "act_layer" not in arguments


@torch.no_grad()
def test_names_of_a_root_alone_have_no_stem_in_them(build: Build, tmp_path: Path) -> None:
    save_model(build(resnet=ROOT, patch_size=2), tmp_path / "model", format="timm")
    names = set(load_file(tmp_path / "model" / "model.safetensors"))
    assert {"patch_embed.backbone.conv.weight", "patch_embed.backbone.norm.bias"} <= names
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert written["architecture"] == "vit_tiny_r_s16_p8_224"
    assert written["pretrained_cfg"]["first_conv"] == "patch_embed.backbone.conv"


# config.json


def test_the_config_that_timm_builds_the_model_from(build: Build, tmp_path: Path) -> None:
    model = build(activation="gelu_tanh", mlp_dim=25)
    model.classes = ("a", "b", "c", "d", "e")
    save_model(model, tmp_path / "model", format="timm")
    assert json.loads((tmp_path / "model" / "config.json").read_text()) == {
        "architecture": "vit_base_patch16_224",
        "num_classes": 5,
        "num_features": 16,
        "global_pool": "token",
        "label_names": ["a", "b", "c", "d", "e"],
        "model_args": {
            "img_size": [24, 32], "patch_size": [8, 8], "in_chans": 3, "embed_dim": 16, "depth": 3,
            "num_heads": 2, "mlp_ratio": 1.5625, "global_pool": "token", "class_token": True,
            "fc_norm": False, "qk_norm": False, "act_layer": "gelu_tanh",
        },
        "pretrained_cfg": {
            "num_classes": 5, "input_size": [3, 24, 32], "fixed_input_size": True,
            "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }  # fmt: skip


@pytest.mark.parametrize(("embed_dim", "mlp_dim"), [(1152, 4304), (768, 3072), (16, 25), (14, 61)])
def test_the_stated_ratio_gives_the_width_of_the_mlp(
    build: Build, tmp_path: Path, embed_dim: int, mlp_dim: int
) -> None:
    model = build(embed_dim=embed_dim, mlp_dim=mlp_dim, depth=1)
    save_model(model, tmp_path / "model", format="timm")
    arguments = json.loads((tmp_path / "model" / "config.json").read_text())["model_args"]
    assert int(embed_dim * arguments["mlp_ratio"]) == mlp_dim


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("ViT-S/32", "vit_small_patch32_224"),
        ("ViT-Ti/16", "vit_tiny_patch16_224"),
        ("ViT-S/8", "vit_small_patch8_224"),
        ("ViT-Ti/8", "vit_base_patch16_224"),
        ("R26+S/32", "vit_small_r26_s32_224"),
    ],
)
def test_known_variants_have_timm_s_name(name: str, architecture: str, tmp_path: Path) -> None:
    model = create_model(name, num_classes=0, image_size=32)
    save_model(model, tmp_path / "model", format="timm")
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert written["architecture"] == architecture


def test_what_timm_s_own_config_states_is_used(
    tensors: Callable[[str], Tensors], tmp_path: Path
) -> None:
    save_file(tensors("timm_vit_small48"), tmp_path / "model.safetensors")
    stated = {
        "architecture": "vit_tiny_patch16_siglip_512",
        "num_classes": 10,
        "global_pool": "avg",
        "label_names": {str(index): f"class {index}" for index in range(10)},
        "model_args": {"act_layer": "gelu_tanh", "num_heads": 6, "fc_norm": False},
        "pretrained_cfg": {
            "input_size": [3, 64, 64], "crop_pct": 0.95, "interpolation": "bilinear",
            "crop_mode": "squash", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6],
        },
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(stated))
    model = load_model(tmp_path)
    config, preprocessing = model.config, model.preprocessing
    assert (config.num_heads, config.activation) == (6, "gelu_tanh")
    assert (config.pool, config.class_token) == ("gap", True)
    assert model.classes == tuple(f"class {index}" for index in range(10))
    assert (preprocessing.size, preprocessing.crop_share) == ((64, 64), 0.95)
    assert (preprocessing.resize, preprocessing.interpolation) == ("squash", "bilinear")
    assert (preprocessing.mean, preprocessing.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_an_old_config_without_parts_is_used(
    tensors: Callable[[str], Tensors], tmp_path: Path
) -> None:
    save_file(tensors("timm_resnetv2_bit"), tmp_path / "model.safetensors")
    stated = {"architecture": "resnetv2_14_bit", "input_size": [3, 64, 64], "crop_pct": 0.5}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    model = load_model(tmp_path)
    assert model.config.image_size == (64, 64)
    assert (model.preprocessing.crop_share, model.preprocessing.interpolation) == (0.5, "bilinear")


@pytest.mark.parametrize(
    ("architecture", "embed_dim", "num_heads"),
    [
        ("vit_little_patch16_reg4_gap_256", 320, 5),
        ("vit_so150m2_patch16_reg1_gap_256", 832, 13),
        ("vit_giant_patch14_dinov2", 1536, 24),
        ("vit_giantopt_patch16_siglip_256", 1536, 16),
        ("vit_so400m_patch14_siglip_224", 1152, 16),
        ("vit_base_patch16_gap_224", 768, 16),
    ],
)
def test_the_architecture_s_name_tells_the_heads(
    build: Build, tmp_path: Path, architecture: str, embed_dim: int, num_heads: int
) -> None:
    model = build(embed_dim=embed_dim, depth=1, mlp_dim=8, image_size=16)
    save_model(model, tmp_path / "model", format="timm")
    without_header(tmp_path / "model" / "model.safetensors")
    (tmp_path / "model" / "config.json").write_text(json.dumps({"architecture": architecture}))
    assert load_model(tmp_path / "model").config.num_heads == num_heads


@pytest.mark.parametrize(
    ("architecture", "activation"),
    [
        ("vit_so400m_patch16_siglip_384", "gelu_tanh"),
        ("vit_large_patch16_siglip_gap_512", "gelu_tanh"),
        ("vit_so400m_patch14_siglip_384", "gelu"),
        ("vit_base_patch16_siglip_512", "gelu"),
        ("vit_base_patch16_224", "gelu"),
    ],
)
def test_siglip_s_gelu_is_told_by_the_name(
    tensors: Callable[[str], Tensors], tmp_path: Path, architecture: str, activation: str
) -> None:
    save_file(tensors("timm_vit_small48"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": architecture}))
    assert load_model(tmp_path, num_heads=3).config.activation == activation


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (
            {"global_pool": "avgmax"},
            "global_pool='avgmax', which is not supported: known are token",
        ),
        ({"model_args": {"act_layer": "quick_gelu"}}, "act_layer='quick_gelu'"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, "crop_mode='border'"),
        ({"pretrained_cfg": {"interpolation": "lanczos"}}, "interpolation='lanczos'"),
        ({"architecture": "vit_base_patch16_rpn_224"}, "normalises after attention and MLP"),
        ({"architecture": "vit_small_patch16_rope_ape_224"}, "turns queries and keys by their"),
    ],
)
def test_what_is_stated_but_not_known_is_refused(
    tensors: Callable[[str], Tensors], tmp_path: Path, stated: dict[str, Any], message: str
) -> None:
    save_file(tensors("timm_vit_small48"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_x"} | stated))
    with pytest.raises(ModelFileError, match=message):
        load_model(tmp_path, num_heads=3)


# What a bare file does not tell, and what is not for us.


def test_a_bare_file_of_an_unknown_width_asks_for_the_heads(shared: Path) -> None:
    with pytest.raises(ModelFileError, match=r"tokens of width 48.*state num_heads="):
        load_model(shared / "reference" / "timm_vit_small48.weights.npz")


def test_a_grid_that_is_no_square_asks_for_the_image_size(build: Build, tmp_path: Path) -> None:
    save_model(build(), tmp_path / "model.safetensors", format="timm")
    path = without_header(tmp_path / "model.safetensors")
    with pytest.raises(
        ModelFileError, match=r"12 patches, which is no square: state the stored_image_size"
    ):
        load_model(path, num_heads=2)


def test_a_bare_bit_resnet_is_preprocessed_as_timm_does_by_default(shared: Path) -> None:
    model = load_model(shared / "reference" / "timm_resnetv2_bit.weights.npz")
    wanted = model.preprocessing
    assert (wanted.size, wanted.crop_share, wanted.interpolation) == ((224, 224), 0.875, "bilinear")
    assert (wanted.mean, wanted.std) == ((0.5,) * 3, (0.5,) * 3)


def test_a_bare_file_is_preprocessed_as_timm_does_by_default(shared: Path) -> None:
    model = load_model(shared / "reference" / "timm_vit_small48.weights.npz", num_heads=3)
    wanted = model.preprocessing
    assert (wanted.resize, wanted.interpolation, wanted.crop_share) == ("shorter", "bicubic", 0.9)
    assert (wanted.mean, wanted.std, wanted.antialias) == ((0.5,) * 3, (0.5,) * 3, True)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("norm_pre.weight", (48,), "a norm before its blocks, as CLIP's"),
        ("patch_embed.norm.weight", (48,), "a norm in its patch embedding"),
        ("blocks.0.attn.norm.weight", (48,), "has too many: 1 tensors.*blocks.0.attn.norm.weight"),
    ],
)
def test_other_models_of_timm_are_refused(
    tensors: Callable[[str], Tensors],
    tmp_path: Path,
    name: str,
    shape: tuple[int, ...],
    message: str,
) -> None:
    save_file(tensors("timm_vit_small48") | {name: torch.ones(shape)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelFileError, match=message):
        load_model(tmp_path / "x.safetensors", num_heads=3)


def test_attention_pooling_that_leaves_out_registers_is_refused(
    build: Build, tmp_path: Path
) -> None:
    model = build(pool="map", num_registers=4)
    save_model(model, tmp_path / "model.safetensors", format="timm")
    with pytest.raises(ModelFileError, match="leaves out a class token or registers"):
        load_model(without_header(tmp_path / "model.safetensors"), num_heads=2, image_size=(24, 32))


def test_a_resnet_without_pre_activation_is_refused(
    tensors: Callable[[str], Tensors], tmp_path: Path
) -> None:
    theirs = tensors("timm_resnetv2_bit") | {"stem.norm.weight": torch.ones(32)}
    save_file(theirs, tmp_path / "x.safetensors")
    with pytest.raises(ModelFileError, match="no BiT ResNet: its units have no norm before"):
        load_model(tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["cls_token", "pos_embed", "blocks.0.mlp.fc1.weight"])
@pytest.mark.parametrize("change", ["shorter", "flat", "deeper"])
def test_a_tensor_of_another_shape_is_refused(
    tensors: Callable[[str], Tensors], tmp_path: Path, name: str, change: str
) -> None:
    theirs = tensors("timm_vit_small48")
    tensor = theirs[name]
    changed = {"shorter": tensor[..., :-1], "flat": tensor.flatten()[:-1], "deeper": tensor[None]}
    save_file(theirs | {name: changed[change].clone()}, tmp_path / "x.safetensors")
    with pytest.raises(ModelFileError, match=r"x\.safetensors"):
        load_model(tmp_path / "x.safetensors", num_heads=3)


REFUSED = {
    "has axial attention": {"attention": "axial"},
    "has position='2d'": {"position": "2d"},
    "has position_at='every'": {"position_at": "every"},
    r"has pool='token\+gap'": {"pool": "token+gap"},
    r"has pool='token\+register' and 2 registers": {"pool": "token+register", "num_registers": 2},
    "has a layer before its head": {"representation_size": 7},
    "has a gated MLP in its attention pooling": {"pool": "map", "activation": "swiglu"},
    "has a gain in its ResNet's root": {
        "resnet": ResNetConfig(**vars(STEM) | {"root_gain": True}), "patch_size": 1,
    },
    "has a ResNet with padding='fixed' below it": {
        "resnet": ResNetConfig(**vars(STEM) | {"padding": "fixed"}), "patch_size": 1,
    },
    "has a ResNet of version v2 below it": {
        "resnet": ResNetConfig(name="R", stages=(1,), width_factor=0.5), "patch_size": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_what_timm_has_no_place_for_is_refused(
    small_model: Build, tmp_path: Path, reason: str
) -> None:
    with pytest.raises(RequestError, match=f"can't be written as timm: it {reason}"):
        save_model(small_model(**REFUSED[reason]), tmp_path / "model", format="timm")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"version": "v1"}, "is a ResNet of version v1"),
        ({"root_gain": True}, "has a gain in its root"),
        ({"padding": "same"}, "has padding='same'"),
        ({"pool_padding": "infinite"}, "has pool_padding='infinite'"),
    ],
)
def test_a_resnet_that_timm_does_not_have_is_refused(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    model = create_model("R14x0.5", num_classes=2, image_size=32, **fields)
    with pytest.raises(RequestError, match=f"can't be written as timm: it {reason}"):
        save_model(model, tmp_path / "model", format="timm")


CAUTIONS = {
    "timm computes the exact GELU unless act_layer='gelu_tanh'": {"activation": "gelu_tanh"},
    "timm adds 1e-6 in norms, this model 1e-12": {"norm_eps": 1e-12},
    "timm's attention pooling leaves out class token and registers": {
        "pool": "map", "num_registers": 1,
    },
    "timm's features are the mean of both tokens": {
        "pool": "token+register", "num_registers": 1, "num_classes": 0,
    },
    "build it there as VisionTransformer": {"resnet": STEM, "patch_size": 1},
    "timm adds 1e-05 in the norms of ResNets, this model 1e-06": {
        "resnet": ResNetConfig(**vars(STEM) | {"norm_eps": 1e-6}), "patch_size": 1,
    },
    "this model has standardization='deviation' with 1e-05": {
        "resnet": ResNetConfig(
            **vars(STEM) | {"standardization": "deviation", "standardization_eps": 1e-5}
        ),
        "patch_size": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("caution", CAUTIONS)
def test_what_timm_would_compute_otherwise_is_said(
    build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture, caution: str
) -> None:
    with caplog.at_level(logging.WARNING, logger="vitral"):
        save_model(build(**CAUTIONS[caution]), tmp_path / "model", format="timm")
    assert caution in caplog.text


def test_a_model_with_timm_s_conventions_needs_no_caution(
    build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="vitral"):
        save_model(build(), tmp_path / "model", format="timm")
        save_model(small_bit(), tmp_path / "bit.safetensors", format="timm")
    assert [record.message for record in caplog.records if "no name" not in record.message] == []


def test_a_resize_that_timm_does_not_do_is_said(
    shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(shared / "reference" / "vit_token.weights.npz")
    with caplog.at_level(logging.WARNING, logger="vitral"):
        save_model(model, tmp_path / "model", format="timm")
    assert "timm resizes images with antialias" in caplog.text


def test_our_description_is_found_whatever_the_length_of_the_header(
    build: Build, tmp_path: Path
) -> None:
    model, first_bytes = build(depth=1), set()
    for count in range(0, 256, 8):
        model.classes = ("a" * (1 + count), "b", "c", "d", "e")
        path = tmp_path / f"{count}.safetensors"
        save_model(model, path, format="timm")
        first_bytes.add(path.read_bytes()[0])
        assert load_model(path).classes == model.classes
    # With which pickles begin, too.
    assert 0x80 in first_bytes
