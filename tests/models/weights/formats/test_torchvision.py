import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitral.config.resnet import V1_FIELDS, ResNetConfig
from vitral.errors import ModelFileError, RequestError
from vitral.models.build import create_model
from vitral.models.vit import ViT
from vitral.models.weights.formats import torchvision
from vitral.models.weights.load import load_model
from vitral.models.weights.save import save_model
from vitral.models.weights.source import WeightFile

Arrays = dict[str, np.ndarray]
Tensors = dict[str, Tensor]
Reference = Callable[[str], Arrays]
Convert = Callable[[np.ndarray], Tensor]
Build = Callable[..., ViT]


@pytest.fixture
def theirs(reference: Reference) -> Tensors:
    arrays = reference("torchvision_vit.weights")
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


@torch.no_grad()
def assert_agrees(model: ViT, expected: Arrays, nchw: Convert) -> None:
    images = nchw(expected["image_nhwc"])
    for ours, name in ((model.tokens(images), "encoded"), (model(images), "logits")):
        assert ours.shape == expected[name].shape
        np.testing.assert_allclose(ours.numpy(), expected[name], atol=1e-5, rtol=0)


def test_outputs_agree_with_torchvision(shared: Path, reference: Reference, nchw: Convert) -> None:
    path = shared / "reference" / "torchvision_vit.weights.npz"
    model = load_model(path, num_heads=3)
    assert isinstance(model, ViT)
    assert_agrees(model, reference("torchvision_vit.io"), nchw)
    assert (model.load_report.format, model.load_report.left_over) == ("torchvision", ())
    assert len(model.load_report.used) == 44


def prefixed(tensors: Tensors, prefix: str) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def older(tensors: Tensors) -> Tensors:
    """Return the names of MLPs before torchvision 0.14."""
    return {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): tensor
        for name, tensor in tensors.items()
    }


WAYS: dict[str, Callable[[Tensors], dict[str, Any]]] = {
    "bare": lambda tensors: tensors,
    "older names": older,
    "model": lambda tensors: {"model": tensors, "epoch": 3},
    "model_ema of a parallel run": lambda tensors: {"model": prefixed(tensors, "module.")},
    "compiled": lambda tensors: {"state_dict": prefixed(tensors, "_orig_mod.")},
}


@pytest.mark.parametrize("way", WAYS)
def test_torch_checkpoints_are_read_whatever_is_around_them(
    reference: Reference, theirs: Tensors, nchw: Convert, tmp_path: Path, way: str
) -> None:
    torch.save(WAYS[way](theirs), tmp_path / "vit.pth")
    model = load_model(tmp_path / "vit.pth", num_heads=3)
    assert isinstance(model, ViT)
    assert_agrees(model, reference("torchvision_vit.io"), nchw)


def test_theirs_to_ours_to_theirs_changes_no_array(theirs: Tensors, tmp_path: Path) -> None:
    save_file(theirs, tmp_path / "theirs.safetensors")
    model = load_model(tmp_path / "theirs.safetensors", num_heads=3)
    save_model(model, tmp_path / "again.safetensors", format="torchvision")
    assert_equal(load_file(tmp_path / "again.safetensors"), theirs)


def assert_equal(ours: Tensors, theirs: Tensors) -> None:
    assert sorted(ours) == sorted(theirs)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


@pytest.fixture
def build(small_model: Build) -> Build:
    def build_model(**fields: object) -> ViT:
        usual = {"image_size": 24, "activation": "gelu", "position_resize": "bicubic_corners"}
        return small_model(**usual | fields)

    return build_model


@pytest.mark.parametrize("has_header", [True, False])
@pytest.mark.parametrize(
    "fields", [{}, {"representation_size": 7}, {"num_classes": 0}, {"patch_size": 4}]
)
@torch.no_grad()
def test_ours_to_theirs_to_ours_changes_no_bit(
    build: Build, tmp_path: Path, fields: dict[str, Any], has_header: bool
) -> None:
    model = build(**fields)
    path = tmp_path / "vit" / "model.safetensors"
    save_model(model, path.parent, format="torchvision")
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    if not has_header:
        save_file(load_file(path), path)
    loaded = load_model(path, **({} if has_header else {"num_heads": 2}))
    assert_equal(loaded.state_dict(), model.state_dict())
    images = torch.randn(2, 3, 24, 24)
    assert torch.equal(loaded(images), model(images))
    assert vars(loaded.config) | {"name": ""} == vars(model.config) | {"name": ""}


def test_every_tensor_has_torchvision_s_name(build: Build, tmp_path: Path) -> None:
    save_model(build(representation_size=7), tmp_path / "vit.safetensors", format="torchvision")
    layer = "encoder.layers.encoder_layer_"
    parts = [
        "ln_1.weight", "ln_1.bias", "self_attention.in_proj_weight", "self_attention.in_proj_bias",
        "self_attention.out_proj.weight", "self_attention.out_proj.bias", "ln_2.weight",
        "ln_2.bias", "mlp.0.weight", "mlp.0.bias", "mlp.3.weight", "mlp.3.bias",
    ]  # fmt: skip
    around = [
        "conv_proj.weight", "conv_proj.bias", "class_token", "encoder.pos_embedding",
        "encoder.ln.weight", "encoder.ln.bias", "heads.pre_logits.weight", "heads.pre_logits.bias",
        "heads.head.weight", "heads.head.bias",
    ]  # fmt: skip
    expected = around + [f"{layer}{index}.{part}" for index in range(3) for part in parts]
    assert sorted(load_file(tmp_path / "vit.safetensors")) == sorted(expected)


@pytest.mark.parametrize(
    ("name", "size", "interpolation", "resized"),
    [
        ("ViT-B/16", 224, "bilinear", 256),
        ("ViT-B/32", 224, "bilinear", 256),
        ("ViT-L/16", 224, "bilinear", 242),
        ("ViT-B/16", 384, "bicubic", 384),
        ("ViT-L/16", 512, "bicubic", 512),
        ("ViT-H/14", 518, "bicubic", 518),
    ],
)
def test_preprocessing_is_that_of_torchvision_s_weights(
    name: str, size: int, interpolation: str, resized: int
) -> None:
    with torch.device("meta"):
        config = create_model(name, image_size=size, num_classes=1000).config
    wanted = torchvision.preprocessing(WeightFile(path="", tensors={}), config)
    assert (wanted.size, wanted.resize) == ((size, size), "shorter")
    assert wanted.interpolation == interpolation
    assert int(size / wanted.crop_share + 1e-6) == resized
    assert (wanted.mean, wanted.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_a_bare_file_of_an_unknown_width_asks_for_the_heads(shared: Path) -> None:
    with pytest.raises(ModelFileError, match=r"tokens of width 48.*state num_heads="):
        load_model(shared / "reference" / "torchvision_vit.weights.npz")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder.layers.encoder_layer_0.mlp.0.weight", "no ViT of torchvision: it has no encoder"),
        ("encoder.ln.bias", "lacks 1 tensors of the model, such as norm.bias"),
    ],
)
def test_a_missing_tensor_is_named(
    theirs: Tensors, tmp_path: Path, name: str, message: str
) -> None:
    del theirs[name]
    save_file(theirs, tmp_path / "vit.safetensors")
    with pytest.raises(ModelFileError, match=message):
        load_model(tmp_path / "vit.safetensors", num_heads=3)


STEM = ResNetConfig(name="R", stages=(1,), width_factor=0.5, **V1_FIELDS)  # type: ignore[arg-type]
REFUSED = {
    "is a hybrid": {"resnet": STEM, "patch_size": 1},
    "has axial attention": {"attention": "axial"},
    "has position='2d'": {"position": "2d"},
    "has position_at='shared'": {"position_at": "shared"},
    "has pool='gap'": {"pool": "gap"},
    "has registers": {"num_registers": 1},
    "has QK-norm": {"qk_norm": True},
    "has LayerScale": {"layer_scale": 0.1},
    "has a gated MLP": {"activation": "swiglu"},
    "normalises after pooling": {"norm_pooled": True},
    "has images of 24 x 32, no squares": {"image_size": (24, 32)},
    "has patches of 8 x 4, no squares": {"patch_size": (8, 4)},
    "has patches that do not tile its images": {"image_size": 25},
    "has 1 channels": {"in_channels": 1},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_torchvision_has_no_place_for_is_refused(
    small_model: Build, tmp_path: Path, reason: str
) -> None:
    model = small_model(**{"image_size": 24} | REFUSED[reason])
    with pytest.raises(RequestError, match=f"can't be written as torchvision: it {reason}"):
        save_model(model, tmp_path / "vit.safetensors", format="torchvision")


def test_a_resnet_is_refused(tmp_path: Path) -> None:
    model = create_model("R14x0.5", num_classes=2, image_size=32)
    with pytest.raises(RequestError, match="can't be written as torchvision: it is no ViT"):
        save_model(model, tmp_path / "vit.safetensors", format="torchvision")


@pytest.mark.parametrize(
    ("fields", "caution"),
    [
        ({"activation": "gelu_tanh"}, "torchvision computes the exact GELU"),
        ({"norm_eps": 1e-12}, "torchvision adds 1e-6 in norms, this model 1e-12"),
        ({"num_classes": 0}, "this model has none: load it with strict=False"),
    ],
)
def test_what_torchvision_would_compute_otherwise_is_said(
    build: Build,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, Any],
    caution: str,
) -> None:
    with caplog.at_level(logging.WARNING, logger="vitral"):
        save_model(build(**fields), tmp_path / "vit.safetensors", format="torchvision")
    assert caution in caplog.text


def test_a_model_with_torchvision_s_conventions_needs_no_caution(
    build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = build()
    model.preprocessing = torchvision.preprocessing(WeightFile("", {}), model.config)
    with caplog.at_level(logging.WARNING, logger="vitral"):
        save_model(model, tmp_path / "vit.safetensors", format="torchvision")
    assert caplog.text == ""
