import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vitral.errors import ModelFileError, RequestError
from vitral.models.build import create_model
from vitral.models.vit import ViT
from vitral.models.weights.load import load_model
from vitral.models.weights.save import save_model

Tensors = dict[str, Tensor]
Build = Callable[..., ViT]
SIZE = {"image_size": (24, 32)}

# The names of the three projects, written down apart from the package's own tables.
NAMES = (
    (r"^embedding\.", "patch_embed.proj."),
    (r"^positions\.0\.table$", "pos_embed"),
    (r"^registers$", "register_tokens"),
    (r"\.attention\.qkv\.", ".attn.qkv."),
    (r"\.attention\.out\.", ".attn.proj."),
    (r"\.scale(\d)\.scale$", r".ls\1.gamma"),
    (r"\.mlp\.hidden\.", ".mlp.fc1."),
    (r"\.mlp\.out\.", ".mlp.fc2."),
)
GATED = ((r"\.mlp\.fc1\.", ".mlp.w12."), (r"\.mlp\.fc2\.", ".mlp.w3."))


def renamed(tensors: Tensors, rules: tuple[tuple[str, str], ...]) -> Tensors:
    found = {}
    for name, tensor in tensors.items():
        other = name
        for pattern, new in rules:
            other = re.sub(pattern, new, other)
        found[other] = tensor.detach().clone()
    return found


@pytest.fixture
def build(small_model: Build) -> Build:
    def build_model(**fields: object) -> ViT:
        return small_model(**{"num_classes": 0, "activation": "gelu"} | fields)

    return build_model


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def save(tree: dict[str, Any]) -> Path:
        torch.save(tree, tmp_path / "checkpoint.pth")
        return tmp_path / "checkpoint.pth"

    return save


Write = Callable[[dict[str, Any]], Path]


@torch.no_grad()
def assert_same(loaded: object, model: ViT, images: Tensor) -> None:
    assert isinstance(loaded, ViT)
    assert torch.equal(loaded.tokens(images), model.tokens(images))
    assert torch.equal(loaded(images), model(images))


def projection_head(width: int) -> Tensors:
    return {
        "head.mlp.0.weight": torch.randn(8, width),
        "head.mlp.0.bias": torch.randn(8),
        "head.last_layer.weight_g": torch.ones(20, 1),
        "head.last_layer.weight_v": torch.randn(20, 8),
    }


def test_a_whole_dino_checkpoint_is_read_as_its_teacher(
    build: Build, write: Write, small_images: Tensor
) -> None:
    model = build()
    state = renamed(model.state_dict(), NAMES)
    teacher = {f"backbone.{name}": tensor for name, tensor in state.items()} | projection_head(16)
    student = {f"module.{name}": torch.zeros_like(tensor) for name, tensor in teacher.items()}
    path = write({"student": student, "teacher": teacher, "optimizer": {}, "epoch": 99})
    loaded = load_model(path, num_heads=2, **SIZE)
    assert_same(loaded, model, small_images)
    report = loaded.load_report
    assert (report.format, len(report.used)) == ("dino", len(state))
    assert set(report.left_over) == set(projection_head(16))
    assert (loaded.config.pool, loaded.config.position_resize) == ("token", "bicubic_offset")
    wanted = loaded.preprocessing
    assert (wanted.resize, wanted.crop_share, wanted.interpolation) == ("shorter", 0.875, "bicubic")
    assert (wanted.mean, wanted.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(("format", "resize"), [("dino", "bicubic_offset"), ("mae", "bicubic")])
def test_a_bare_encoder_is_read_as_the_format_that_is_stated(
    build: Build, write: Write, small_images: Tensor, format: str, resize: str
) -> None:
    model = build()
    path = write(renamed(model.state_dict(), NAMES))
    assert load_model(path, num_heads=2, **SIZE).load_report.format == "timm"
    loaded = load_model(path, format=format, num_heads=2, **SIZE)
    assert_same(loaded, model, small_images)
    assert (loaded.load_report.format, loaded.config.position_resize) == (format, resize)
    assert loaded.preprocessing.mean == (0.485, 0.456, 0.406)


def test_weights_of_another_format_are_refused_when_one_is_stated(
    shared: Path,
) -> None:
    with pytest.raises(ModelFileError, match="tensors of no format that is known.*known are dino"):
        load_model(shared / "reference" / "vit_token.weights.npz", format="dino")


@pytest.mark.parametrize("num_registers", [0, 4])
@pytest.mark.parametrize("is_gated", [False, True])
def test_dinov2_is_read_with_registers_and_gated_mlps(
    build: Build, write: Write, small_images: Tensor, num_registers: int, is_gated: bool
) -> None:
    model = build(
        num_registers=num_registers,
        layer_scale=1e-5,
        activation="swiglu" if is_gated else "gelu",
    )
    theirs = renamed(model.state_dict(), (*NAMES, *(GATED if is_gated else ())))
    assert ("blocks.0.mlp.w12.weight" in theirs) == is_gated
    loaded = load_model(write(theirs | {"mask_token": torch.zeros(1, 16)}), num_heads=2, **SIZE)
    assert_same(loaded, model, small_images)
    assert loaded.load_report.left_over == ("mask_token",)
    resize = "bicubic_antialias" if num_registers else "bicubic_offset"
    assert loaded.config.position_resize == resize
    assert loaded.config.num_registers == num_registers


@torch.no_grad()
def test_the_first_half_of_w12_is_the_gate(build: Build, write: Write) -> None:
    theirs = renamed(build(activation="swiglu").state_dict(), (*NAMES, *GATED))
    loaded = load_model(write(theirs), num_heads=2, **SIZE)
    tokens = torch.randn(2, 5, 16)
    first, second = F.linear(
        tokens, theirs["blocks.0.mlp.w12.weight"], theirs["blocks.0.mlp.w12.bias"]
    ).chunk(2, dim=-1)
    wanted = F.linear(
        F.silu(first) * second, theirs["blocks.0.mlp.w3.weight"], theirs["blocks.0.mlp.w3.bias"]
    )
    assert torch.allclose(loaded.blocks[0].mlp(tokens), wanted, atol=1e-6)


def test_blocks_in_chunks_keep_their_number(
    build: Build, write: Write, small_images: Tensor
) -> None:
    model = build(depth=4, layer_scale=1e-5)
    state = renamed(model.state_dict(), NAMES)
    chunked = {
        re.sub(r"^blocks\.(\d+)", lambda match: f"blocks.{int(match[1]) // 2}.{match[1]}", name): t
        for name, t in state.items()
    }
    assert {"blocks.0.1.norm1.weight", "blocks.1.2.norm1.weight"} <= set(chunked)
    path = write(
        {
            "teacher": {f"backbone.{name}": tensor for name, tensor in chunked.items()}
            | {"dino_head.mlp.0.weight": torch.randn(3, 16), "ibot_head.x": torch.ones(2)}
        }
    )
    loaded = load_model(path, num_heads=2, **SIZE)
    assert_same(loaded, model, small_images)
    assert loaded.load_report.left_over == ("dino_head.mlp.0.weight", "ibot_head.x")


def test_dinov2_s_linear_classifier_reads_token_and_patches(
    build: Build, write: Write, small_images: Tensor
) -> None:
    model = build(num_classes=5, pool="token+gap", layer_scale=1e-5)
    state = renamed(model.state_dict(), NAMES)
    theirs = {
        f"linear_{name}" if name.startswith("head.") else f"backbone.{name}": tensor
        for name, tensor in state.items()
    }
    loaded = load_model(write(theirs), num_heads=2, **SIZE)
    assert_same(loaded, model, small_images)
    assert (loaded.config.pool, loaded.config.num_classes) == ("token+gap", 5)


def test_a_linear_classifier_on_four_layers_is_left_over(
    build: Build, write: Write, small_images: Tensor
) -> None:
    model = build(layer_scale=1e-5)
    theirs = renamed(model.state_dict(), NAMES)
    theirs |= {"linear_head.weight": torch.randn(5, 80), "linear_head.bias": torch.randn(5)}
    loaded = load_model(write(theirs), num_heads=2, **SIZE)
    assert_same(loaded, model, small_images)
    assert loaded.load_report.left_over == ("linear_head.bias", "linear_head.weight")


def test_dinov2_s_giant_is_known_by_its_width(build: Build, write: Write) -> None:
    model = build(embed_dim=1536, depth=1, mlp_dim=8, activation="swiglu", image_size=16)
    loaded = load_model(write(renamed(model.state_dict(), (*NAMES, *GATED))))
    assert (loaded.config.num_heads, loaded.config.image_size) == (24, (16, 16))


def test_an_unknown_width_asks_for_the_heads(build: Build, write: Write) -> None:
    theirs = renamed(build().state_dict(), NAMES) | {"mask_token": torch.zeros(1, 16)}
    with pytest.raises(ModelFileError, match=r"tokens of width 16.*state num_heads="):
        load_model(write(theirs), **SIZE)


DECODER = {
    "mask_token": (1, 1, 8), "decoder_embed.weight": (8, 16), "decoder_pos_embed": (1, 13, 8),
    "decoder_blocks.0.attn.qkv.weight": (24, 8), "decoder_norm.bias": (8,),
    "decoder_pred.weight": (192, 8),
}  # fmt: skip


def test_mae_s_decoder_is_left_over(build: Build, write: Write, small_images: Tensor) -> None:
    model = build()
    decoder = {name: torch.randn(shape) for name, shape in DECODER.items()}
    path = write({"model": renamed(model.state_dict(), NAMES) | decoder, "epoch": 800})
    loaded = load_model(path, num_heads=2, **SIZE)
    assert_same(loaded, model, small_images)
    report = loaded.load_report
    assert (report.format, report.left_over) == ("mae", tuple(sorted(DECODER)))
    assert (loaded.config.depth, loaded.config.position_resize) == (3, "bicubic")


def test_a_fine_tuned_mae_averages_its_patches_before_the_norm(
    build: Build, write: Write, small_images: Tensor
) -> None:
    model = build(num_classes=5, pool="gap", class_token=True, norm_pooled=True)
    theirs = renamed(model.state_dict(), (*NAMES, (r"^norm\.", "fc_norm.")))
    loaded = load_model(write({"model": theirs}), format="mae", num_heads=2, **SIZE)
    assert_same(loaded, model, small_images)


def test_other_extra_tensors_are_not_passed_over(build: Build, write: Write) -> None:
    theirs = renamed(build().state_dict(), NAMES)
    theirs |= {"mask_token": torch.zeros(1, 16), "adapter.weight": torch.zeros(3)}
    with pytest.raises(ModelFileError, match="has too many: 1 tensors.*adapter.weight"):
        load_model(write(theirs), num_heads=2, **SIZE)


@pytest.mark.parametrize("format", ["dino", "mae"])
def test_these_formats_are_only_read(tmp_path: Path, format: str) -> None:
    model = create_model("ViT-Mi/8", image_size=16, num_classes=0)
    with pytest.raises(RequestError, match=f"format='{format}' can't be written"):
        save_model(model, tmp_path / "model", format=format)
