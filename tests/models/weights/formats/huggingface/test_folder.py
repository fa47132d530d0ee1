"""Hugging Face's files: the fixtures, and `transformers` side by side where it is installed."""

import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.small_models import build_small
from torch import Tensor

from vitral.config.preprocessing import Preprocessing
from vitral.data.transforms import preprocess
from vitral.errors import ModelFileError, RequestError
from vitral.models.build import create_model
from vitral.models.model import Model
from vitral.models.weights.formats.huggingface.processor import read_processor
from vitral.models.weights.load import load_model
from vitral.models.weights.save import save_model

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

Reference = Callable[[str], dict[str, np.ndarray]]
Convert = Callable[[np.ndarray], Tensor]
Fields = dict[str, Any]
TOLERANCE = 1e-5
CLASSES = ("ant", "bee", "crow", "dog", "eel")
FIXTURES: dict[str, Fields] = {
    "hf_vit_classification": {},
    "hf_vit_classification_tanh": {"activation": "gelu_tanh", "norm_eps": 1e-6},
    "hf_vit_model_pooler": {},
}


def assert_near(ours: Tensor, theirs: Any, *, tolerance: float = TOLERANCE) -> None:
    theirs = torch.as_tensor(theirs)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


def assert_same_tensors(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# The fixtures.


@pytest.mark.parametrize("name", FIXTURES)
@pytest.mark.parametrize("form", ["folder", "file of the folder", "bare file", "npz"])
@torch.no_grad()
def test_outputs_agree_with_the_fixtures(
    shared: Path, reference: Reference, nchw: Convert, tmp_path: Path, name: str, form: str
) -> None:
    folder, expected = shared / "reference" / name, reference(f"{name}.io")
    fields: Fields = {}
    path = folder
    if form == "file of the folder":
        path = folder / "model.safetensors"
    elif form != "folder":
        # A bare file tells no heads, and has the convention of most such files: exact GELU, 1e-12.
        fields = FIXTURES[name] | {"num_heads": 3}
        path = shared / "reference" / f"{name}.weights.npz"
    if form == "bare file":
        path = tmp_path / "weights.safetensors"
        save_file(load_file(folder / "model.safetensors"), path)
    model = load_model(path, **fields)
    traced = model.trace(nchw(expected["image_nhwc"]), model.trace_names)
    for index in range(3):
        assert_near(traced[f"block{index:02}"], expected[f"hidden_state_{index + 1}"])
        assert_near(traced[f"block{index:02}/attention"], expected["attentions"][index])
    if "logits" in expected:
        assert_near(traced["logits"], expected["logits"])
        assert_near(model(nchw(expected["image_nhwc"])), expected["logits"])
    else:
        assert_near(traced["tokens"], expected["last_hidden_state"])
        assert_near(model(nchw(expected["image_nhwc"])), expected["pooler_output"])
    assert model.load_report.left_over == ()
    assert model.classes is None


@pytest.mark.parametrize("name", FIXTURES)
def test_config_json_says_what_shapes_do_not(shared: Path, name: str) -> None:
    config = load_model(shared / "reference" / name).config
    theirs = json.loads((shared / "reference" / name / "config.json").read_text())
    assert (config.num_heads, config.norm_eps) == (3, theirs["layer_norm_eps"])
    assert config.activation == ("gelu_tanh" if "tanh" in name else "gelu")
    assert (config.image_size, config.patch_size) == ((64, 64), (16, 16))
    assert (config.pool, config.position_resize) == ("token", "bicubic")
    assert (config.num_classes, config.representation_size) == (
        (0, 48) if "pooler" in name else (10, 0)
    )


@pytest.mark.parametrize("name", FIXTURES)
def test_the_fixtures_come_back_as_they_were(shared: Path, tmp_path: Path, name: str) -> None:
    folder = shared / "reference" / name
    save_model(load_model(folder), tmp_path / "out", format="huggingface")
    theirs = load_file(folder / "model.safetensors")
    assert_same_tensors(load_file(tmp_path / "out" / "model.safetensors"), theirs)
    stated = json.loads((folder / "config.json").read_text())
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {key for key in stated if written.get(key) != stated[key]} == {"transformers_version"}


@pytest.fixture
def folder(shared: Path, tmp_path: Path) -> Path:
    """A copy of the classifier that may be changed."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (shared / "reference" / "hf_vit_classification").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "quick_gelu"}, "hidden_act='quick_gelu': only GELU can be loaded"),
        ({"model_type": "beit"}, "model_type='beit': known are vit, deit"),
        ({"num_attention_heads": 5}, "num_heads=5 does not divide embed_dim=48"),
    ],
)
def test_what_no_model_of_ours_is_is_refused(folder: Path, changes: Fields, message: str) -> None:
    edit_json(folder / "config.json", **changes)
    with pytest.raises(ModelFileError, match=message):
        load_model(folder)


def test_a_pooler_without_tanh_can_only_be_left_out(shared: Path, tmp_path: Path) -> None:
    for file in (shared / "reference" / "hf_vit_model_pooler").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    edit_json(tmp_path / "config.json", pooler_act="relu")
    with pytest.raises(ModelFileError, match="pooler_act='relu'.*leave it out by representation_s"):
        load_model(tmp_path)
    model = load_model(tmp_path, representation_size=0)
    assert model.load_report.left_over == ("pooler.dense.bias", "pooler.dense.weight")


def test_a_bare_file_of_unknown_width_needs_its_heads(shared: Path) -> None:
    with pytest.raises(ModelFileError, match="width 48, and a bare file does not tell .* num_hea"):
        load_model(shared / "reference" / "hf_vit_classification.weights.npz")


@pytest.mark.parametrize(
    "name",
    [
        "vit.embeddings.position_embeddings", "vit.encoder.layer.1.attention.attention.key.bias",
        "vit.encoder.layer.0.intermediate.dense.weight", "vit.layernorm.bias",
    ],
)  # fmt: skip
def test_a_missing_tensor_is_an_error(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"has no tensor|lacks|no square|make no model"):
        load_model(folder)


def test_names_of_classes_are_kept_unless_they_only_count(tmp_path: Path) -> None:
    save_model(build_ours("ViT-Mi/8", {"num_classes": 12}), tmp_path / "m", format="huggingface")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    save_file(tensors, tmp_path / "m" / "model.safetensors")  # without what we say of it
    assert load_model(tmp_path / "m").classes is None
    names = [f"kind {index}" for index in range(12)]
    labels = {str(index): names[index] for index in reversed(range(12))}
    edit_json(tmp_path / "m" / "config.json", id2label=labels)
    model = load_model(tmp_path / "m")
    assert model.classes == tuple(names)
    save_model(model, tmp_path / "out", format="huggingface")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert list(written["id2label"].items()) == [(str(i), names[i]) for i in range(12)]
    assert written["label2id"] == {name: index for index, name in enumerate(names)}
    edit_json(tmp_path / "m" / "config.json", id2label={"0": "one too few"})
    assert load_model(tmp_path / "m").classes is None


def test_a_file_in_half_precision_becomes_float32(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({n: t.half() for n, t in tensors.items()}, folder / "model.safetensors")
    model = load_model(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.head.bias.data, tensors["classifier.bias"].half().float())


@pytest.mark.parametrize("places", [{}, None, {"a": "../b"}, {"a": "/etc/b"}, ["x"]])
def test_an_index_names_files_beside_it(folder: Path, places: Any) -> None:
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(ModelFileError, match=r"index\.json names no files of its folder"):
        load_model(folder)


def split(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    names = sorted(tensors)
    return [{name: tensors[name] for name in names[part::2]} for part in (0, 1)]


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_and_older_torch_files_are_read(folder: Path, suffix: str) -> None:
    before = load_model(folder).state_dict()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    write = save_file if suffix == "safetensors" else torch.save
    placed = {}
    for number, part in enumerate(split(tensors), start=1):
        shard = f"{stem}-0000{number}-of-00002.{suffix}"
        write(part, folder / shard)
        placed |= dict.fromkeys(part, shard)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    assert_same_tensors(load_model(folder).state_dict(), before)
    index.unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert_same_tensors(load_model(folder).state_dict(), before)


# transformers side by side.


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    return pytest.importorskip("transformers", reason="needs transformers: the extra `dev`")


VIT: Fields = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "image_size": [24, 32], "patch_size": 8, "num_labels": 5,
}  # fmt: skip
DINOV2: Fields = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 24,
    "patch_size": 8, "num_labels": 5, "mlp_ratio": 3,
}  # fmt: skip
BIT: Fields = {
    "embedding_size": 32, "hidden_sizes": [128, 256], "depths": [1, 2], "num_labels": 5,
}  # fmt: skip
MAE: Fields = VIT | {
    "image_size": 24, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2, "decoder_intermediate_size": 16, "mask_ratio": 0.0,
}  # fmt: skip
# The class, its config's class and fields, and what our model is by then.
THEIRS: dict[str, tuple[str, str, Fields, Fields]] = {
    "vit": ("ViTForImageClassification", "ViTConfig", VIT, {"pool": "token", "num_classes": 5}),
    "vit trunk": (
        "ViTModel", "ViTConfig", VIT | {"pooler_output_size": 12, "hidden_act": "gelu_new"},
        {"representation_size": 12, "num_classes": 0, "activation": "gelu_tanh"},
    ),
    "vit without qkv biases": (
        "ViTForImageClassification", "ViTConfig", VIT | {"qkv_bias": False}, {},
    ),
    "vit of other patches": (
        "ViTForImageClassification", "ViTConfig",
        VIT | {"patch_size": [6, 8], "num_channels": 1, "layer_norm_eps": 1e-3},
        {"patch_size": (6, 8), "in_channels": 1, "norm_eps": 1e-3},
    ),
    "masked vit": ("ViTForMaskedImageModeling", "ViTConfig", VIT | {"encoder_stride": 8}, {}),
    "deit": (
        "DeiTForImageClassification", "DeiTConfig", VIT, {"pool": "token", "num_registers": 1},
    ),
    "deit with teacher": (
        "DeiTForImageClassificationWithTeacher", "DeiTConfig", VIT, {"pool": "token+register"},
    ),
    "deit trunk": ("DeiTModel", "DeiTConfig", VIT, {"representation_size": 16}),
    "dinov2": (
        "Dinov2ForImageClassification", "Dinov2Config", DINOV2 | {"layerscale_value": 0.5},
        {"pool": "token+gap", "layer_scale": 0.5, "position_resize": "bicubic"},
    ),
    "dinov2 trunk": (
        "Dinov2Model", "Dinov2Config", DINOV2 | {"use_swiglu_ffn": True},
        {"pool": "token", "activation": "swiglu", "mlp_dim": 32},
    ),
    "dinov2 with registers": (
        "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig",
        DINOV2 | {"num_register_tokens": 3}, {"num_registers": 3, "pool": "token+gap"},
    ),
    "dinov2 with registers, trunk": (
        "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig",
        DINOV2 | {"num_register_tokens": 1, "use_swiglu_ffn": True},
        {"num_registers": 1, "position_resize": "bicubic_antialias"},
    ),
    "bit": ("BitForImageClassification", "BitConfig", BIT, {"stages": (1, 2), "width_factor": 0.5}),
    "bit trunk": ("BitModel", "BitConfig", BIT, {"num_classes": 0}),
    "mae": (
        "ViTMAEForPreTraining", "ViTMAEConfig", MAE, {"num_classes": 0, "representation_size": 0},
    ),
    "mae trunk": ("ViTMAEModel", "ViTMAEConfig", MAE, {"position": "1d"}),
}  # fmt: skip


def build_theirs(transformers: ModuleType, name: str, folder: Path) -> Any:
    """Write a small model of theirs whose every weight counts, and return it."""
    kind, config_kind, fields, _ = THEIRS[name]
    torch.manual_seed(0)
    config = getattr(transformers, config_kind)(**fields, attn_implementation="eager")
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
            if name == "bit trunk" and parameter.ndim == 4:
                parameter.mul_(1e-3)  # so small that what is added to their variance counts
    model.save_pretrained(folder)
    return model


def images_for(model: Model, *, seed: int = 1) -> Tensor:
    shape = (2, model.config.in_channels, *model.config.image_hw)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def their_outputs(model: Any, images: Tensor, **extra: Any) -> dict[str, Tensor]:
    """Return their `logits` or `features`, and `tokens` where there are some."""
    if "MAE" in type(model).__name__:
        # Masking shuffles the patches by this noise: increasing, they stay in order.
        base = getattr(model, "vit", model)
        noise = torch.arange(9.0).expand(len(images), -1)
        hidden = base(images, noise=noise).last_hidden_state
        return {"tokens": hidden, "features": hidden[:, 0]}
    if "MaskedImageModeling" in type(model).__name__:
        model = model.vit
    outputs = model(images, **extra)
    if "logits" in outputs:
        return {"logits": outputs.logits}
    tokens = outputs.last_hidden_state
    pooled = outputs.get("pooler_output")
    features = tokens[:, 0] if pooled is None else pooled.flatten(1)
    return {"features": features} | ({"tokens": tokens} if tokens.ndim == 3 else {})


def assert_same_outputs(ours: Model, theirs: dict[str, Tensor], images: Tensor) -> None:
    traced = ours.trace(images, theirs)
    for name, value in theirs.items():
        assert_near(traced[name], value)


@pytest.mark.parametrize("name", THEIRS)
@torch.no_grad()
def test_their_models_compute_the_same_here(
    transformers: ModuleType, tmp_path: Path, name: str
) -> None:
    theirs = build_theirs(transformers, name, tmp_path)
    ours = load_model(tmp_path)
    assert ours.load_report.format == "huggingface"
    assert all(getattr(ours.config, field) == v for field, v in THEIRS[name][3].items())
    images = images_for(ours)
    if name.startswith("bit"):
        images = torch.rand(2, 3, 64, 48) * 2 - 1
        ours = load_model(tmp_path, image_size=(64, 48))
    assert_same_outputs(ours, their_outputs(theirs, images), images)


@pytest.mark.parametrize("name", THEIRS)
@torch.no_grad()
def test_their_files_come_back_as_they_were(
    transformers: ModuleType, tmp_path: Path, name: str
) -> None:
    build_theirs(transformers, name, tmp_path / "theirs")
    model = load_model(tmp_path / "theirs")
    save_model(model, tmp_path / "ours", format="huggingface")
    theirs = load_file(tmp_path / "theirs" / "model.safetensors")
    ours = load_file(tmp_path / "ours" / "model.safetensors")
    expected = {
        n: t for n, t in theirs.items() if not n.startswith("decoder.") and "mask_token" not in n
    }
    if "without qkv" in name:
        ours = {n: t for n, t in ours.items() if n in theirs}
    if name in ("masked vit", "mae"):  # whose trunk alone is kept
        expected = {n.removeprefix("vit."): t for n, t in expected.items()}
    if "deit" in name:
        unfold_distillation(ours, theirs)
    assert_same_tensors(ours, expected)
    again = load_model(tmp_path / "ours")
    images = images_for(model)
    assert again.config == model.config
    assert torch.equal(again(images), model(images))


def unfold_distillation(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Check what DeiT has in two tensors each and we in one, and put theirs in its place."""
    base = "deit." if "deit.layernorm.bias" in ours else ""
    token, table = f"{base}embeddings.distillation_token", f"{base}embeddings.position_embeddings"
    assert torch.equal(ours[token], theirs[token] + theirs[table][:, 1:2])
    assert not ours[table][:, 1].any()
    ours[table][:, 1:2] = theirs[table][:, 1:2]
    ours[token] = theirs[token]
    biases = [f"{part}_classifier.bias" for part in ("cls", "distillation")]
    if biases[0] in theirs:
        mean = (theirs[biases[0]] + theirs[biases[1]]) / 2
        for bias in biases:
            assert torch.equal(ours[bias], mean)
            ours[bias] = theirs[bias]


@pytest.mark.parametrize("name", ["vit", "deit with teacher", "dinov2", "dinov2 with registers"])
@torch.no_grad()
def test_positions_follow_another_resolution_as_theirs_do(
    transformers: ModuleType, tmp_path: Path, name: str
) -> None:
    kind, config_kind, fields, _ = THEIRS[name]
    fields = fields | {"image_size": 32}  # a square, which is all that theirs can interpolate
    torch.manual_seed(0)
    theirs = getattr(transformers, kind)(getattr(transformers, config_kind)(**fields)).eval()
    for parameter in theirs.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape))
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path, image_size=(24, 56))
    images = images_for(ours)
    # DINOv2 always interpolates.
    extra = {} if "dinov2" in name else {"interpolate_pos_encoding": True}
    assert_same_outputs(ours, their_outputs(theirs, images, **extra), images)
    assert ours.load_report.resized == ("positions.0.table",)


OURS: dict[str, tuple[str, Fields]] = {
    "ViTForImageClassification": ("ViT-Mi/8", {"activation": "gelu", "norm_eps": 1e-5}),
    "ViTModel": ("ViT-Mi/8", {"num_classes": 0, "representation_size": 12}),
    "DeiTForImageClassification": ("ViT-Mi/8", {"num_registers": 1, "dropout": 0.2}),
    "DeiTForImageClassificationWithTeacher": (
        "ViT-Mi/8", {"num_registers": 1, "pool": "token+register"},
    ),
    "DeiTModel": ("ViT-Mi/8", {"num_registers": 1, "num_classes": 0, "representation_size": 16}),
    "Dinov2ForImageClassification": (
        "ViT-Mi/8", {"layer_scale": 0.5, "image_size": 24, "mlp_dim": 32, "pool": "token+gap"},
    ),
    "Dinov2ForImageClassification of a class token": (
        "ViT-Mi/8", {"layer_scale": 0.5, "image_size": 24, "mlp_dim": 32},
    ),
    "Dinov2Model": (
        "ViT-Mi/8", {
            "layer_scale": 0.1, "image_size": 24, "mlp_dim": 24, "activation": "swiglu",
            "num_classes": 0,
        },
    ),
    "Dinov2WithRegistersForImageClassification": (
        "ViT-Mi/8", {
            "layer_scale": 0.5, "image_size": 24, "mlp_dim": 32, "pool": "token+gap",
            "num_registers": 2,
        },
    ),
    "BitForImageClassification": (
        "R14x1", {"width_factor": 0.5, "stages": (1, 2, 1), "standardization_eps": 1e-8},
    ),
    "BitModel": ("R14x1", {"width_factor": 0.5, "num_classes": 0, "standardization_eps": 1e-8}),
}  # fmt: skip
SMALL: Fields = {
    "image_size": (24, 32), "num_classes": 5, "embed_dim": 16, "depth": 2, "num_heads": 2,
    "mlp_dim": 24,
}  # fmt: skip


def build_ours(name: str, fields: Fields) -> Model:
    """Return a small model of ours whose every weight counts."""
    small = SMALL if name.startswith("ViT") else {"image_size": (64, 48), "num_classes": 5}
    torch.manual_seed(3)
    model = create_model(name, **small | fields).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model


@pytest.mark.parametrize("architecture", OURS)
@torch.no_grad()
def test_transformers_computes_the_same_with_our_models(
    transformers: ModuleType, tmp_path: Path, architecture: str
) -> None:
    model = build_ours(*OURS[architecture])
    if model.config.num_classes:
        model.classes = CLASSES
    save_model(model, tmp_path / "out", format="huggingface")
    auto = "AutoModelForImageClassification" if model.config.num_classes else "AutoModel"
    theirs, info = getattr(transformers, auto).from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert type(theirs).__name__ == architecture.partition(" ")[0]
    assert {key: list(value) for key, value in info.items() if value} in (
        {}, {"missing_keys": [f"{theirs.base_model_prefix}.embeddings.mask_token"]},
    )  # fmt: skip
    images = images_for(model)
    assert_same_outputs(model, their_outputs(theirs.eval(), images), images)
    if model.config.num_classes:
        assert tuple(theirs.config.id2label.values()) == CLASSES
    # What transformers writes of it has lost what we said of it.
    theirs.save_pretrained(tmp_path / "again")
    again = load_model(tmp_path / "again", **sized(model))
    assert_near(again(images), model(images))
    assert again.classes == model.classes


def sized(model: Model) -> Fields:
    return {} if hasattr(model.config, "patch_size") else {"image_size": model.config.image_size}


@pytest.mark.parametrize("form", ["folder", "model.safetensors"])
@pytest.mark.parametrize("architecture", OURS)
@torch.no_grad()
def test_our_models_come_back_as_they_were(tmp_path: Path, architecture: str, form: str) -> None:
    model = build_ours(*OURS[architecture])
    model.preprocessing = Preprocessing(
        size=model.config.image_hw, resize="shorter", crop_share=0.8, interpolation="bicubic",
        mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1),
    )  # fmt: skip
    model.output = "sigmoid"
    model.classes = CLASSES if model.config.num_classes else None
    save_model(model, tmp_path / form, format="huggingface")
    again = load_model(tmp_path / form)
    assert again.config == model.config
    assert (again.classes, again.output) == (model.classes, "sigmoid")
    assert again.preprocessing == model.preprocessing
    images = images_for(model)
    if "Teacher" not in architecture:
        assert_same_tensors(again.state_dict(), model.state_dict())
    assert torch.equal(again(images), model(images))


REFUSED: dict[str, tuple[str, Fields]] = {
    "has no class token": ("ViT-Mi/8", {"pool": "gap"}),
    "has pool='gap'": ("ViT-Mi/8", {"pool": "gap", "class_token": True}),
    "has pre_logits before its head": ("ViT-Mi/8", {"representation_size": 8}),
    "has position='sincos2d'": ("ViT-Mi/8", {"position": "sincos2d"}),
    "has position_at='every'": ("ViT-Mi/8", {"position_at": "every"}),
    "has QK-norm": ("ViT-Mi/8", {"qk_norm": True}),
    "normalises after pooling": ("ViT-Mi/8", {"norm_pooled": True}),
    "has axial attention": ("AxialViT-B/16", {"depth": 1, "image_size": 32, "patch_size": 8}),
    "is a hybrid": ("R+Ti/16", {"depth": 1}),
    "has 2 registers without LayerScale": ("ViT-Mi/8", {"num_registers": 2}),
    "has a gated MLP without LayerScale": ("ViT-Mi/8", {"activation": "swiglu"}),
    "has LayerScale and images of 24 x 32, no square": (
        "ViT-Mi/8", {"layer_scale": 0.1, "mlp_dim": 32},
    ),
    "has LayerScale and mlp_dim=24, no whole multiple of embed_dim=16": (
        "ViT-Mi/8", {"layer_scale": 0.1, "image_size": 24},
    ),
    "has pre_logits and LayerScale": (
        "ViT-Mi/8", {"layer_scale": 0.1, "image_size": 24, "representation_size": 8},
    ),
    "has padding='same'": ("R14x1", {"width_factor": 0.5, "padding": "same"}),
    "has pool_padding='infinite'": ("R14x1", {"width_factor": 0.5, "pool_padding": "infinite"}),
    "has a gain in its root": ("R14x1", {"width_factor": 0.5, "root_gain": True}),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_what_transformers_has_no_place_for_is_refused(tmp_path: Path, reason: str) -> None:
    model = build_ours(*REFUSED[reason])
    with pytest.raises(RequestError, match=f"can't be written as huggingface: it {reason}, for"):
        save_model(model, tmp_path / "out", format="huggingface")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "fields", "caution"),
    [
        ("ViT-Mi/8", {"num_classes": 0}, "AutoModel adds a pooler of random weights"),
        (
            "ViT-Mi/8", {"num_classes": 0, "pool": "token+register", "num_registers": 1},
            "pooler_output is of the class token alone",
        ),
        (
            "ViT-Mi/8",
            {
                "num_classes": 0, "pool": "token+gap", "layer_scale": 0.1, "image_size": 24,
                "mlp_dim": 32,
            },
            "pooler_output is of the class token alone",
        ),
        ("R14x1", {"width_factor": 0.5}, r"sqrt\(variance \+ 1e-08\), this model by variance"),
        ("R14x1", {"width_factor": 0.5, "norm_eps": 1e-6}, "adds 1e-05 in norms, this model 1e-06"),
    ],
)  # fmt: skip
def test_what_transformers_computes_otherwise_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, fields: Fields, caution: str
) -> None:
    with caplog.at_level(logging.WARNING, logger="vitral"):
        save_model(build_ours(name, fields), tmp_path / "out", format="huggingface")
    assert re.search(caution, caplog.text)


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_type": "bottleneck"}, {"global_padding": "SAME"}, {"num_groups": 16},
        {"hidden_act": "silu"}, {"embedding_dynamic_padding": True},
        {"output_stride": 8, "depths": [1, 1, 1, 1]},
    ],
    ids=str,
)  # fmt: skip
def test_another_bit_is_refused(tmp_path: Path, changes: Fields) -> None:
    model = build_ours("R14x1", {"width_factor": 0.5, "standardization_eps": 1e-8})
    save_model(model, tmp_path / "out", format="huggingface")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    save_file(tensors, tmp_path / "out" / "model.safetensors")  # without what we say of it
    edit_json(tmp_path / "out" / "config.json", **changes)
    with pytest.raises(ModelFileError, match=f"config.json has {next(iter(changes))}="):
        load_model(tmp_path / "out")


# What images must become.

PROCESSORS: dict[str, tuple[str, Fields, Fields]] = {
    "vit": ("ViTImageProcessorPil", {"size": {"height": 24, "width": 32}}, {"resize": "squash"}),
    "vit, bicubic, not normalised": (
        "ViTImageProcessorPil",
        {"size": {"height": 24, "width": 32}, "resample": 3, "do_normalize": False},
        {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bicubic"},
    ),
    "vit, not rescaled": (
        "ViTImageProcessorPil",
        {"size": {"height": 24, "width": 32}, "do_rescale": False, "image_mean": [127.5] * 3,
         "image_std": [127.5] * 3},
        {"mean": (0.5,) * 3, "std": (0.5,) * 3},
    ),
    "deit": (
        "DeiTImageProcessorPil",
        {"size": {"height": 27, "width": 36}, "crop_size": {"height": 24, "width": 32}},
        {"resize": "squash", "crop_share": 24 / 27, "interpolation": "bicubic"},
    ),
    "bit": (
        "BitImageProcessorPil",
        {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}},
        {"resize": "shorter", "crop_share": 24 / 28, "mean": (0.48145466, 0.4578275, 0.40821073)},
    ),
    "bit, odd": (
        "BitImageProcessorPil",
        {"size": {"shortest_edge": 27}, "crop_size": {"height": 24, "width": 24}, "resample": 2},
        {"interpolation": "bilinear"},
    ),
    "convnext": (
        "ConvNextImageProcessorPil", {"size": {"shortest_edge": 24}, "crop_pct": 0.8},
        {"resize": "shorter", "crop_share": 0.8},
    ),
    "convnext, large": (
        "ConvNextImageProcessorPil", {"size": {"shortest_edge": 384}}, {"resize": "squash"},
    ),
}  # fmt: skip


def smooth_pixels() -> np.ndarray:
    """Return an image without sharp edges: there bicubic resizing overshoots, and clips."""
    y, x, channel = np.ogrid[:61, :45, :3]
    pixels = np.sin(y / 7 + channel) + np.sin(x / 5) + np.sin((x + 2 * y) / 11 + 2 * channel)
    return (127.5 + 40 * pixels).astype(np.uint8)


@pytest.mark.parametrize("name", PROCESSORS)
def test_images_become_what_their_processors_make_of_them(
    transformers: ModuleType, tmp_path: Path, name: str
) -> None:
    kind, fields, expected = PROCESSORS[name]
    processor = getattr(transformers, kind)(**fields)
    pixels = smooth_pixels()
    theirs = processor(images=pixels, return_tensors="np")["pixel_values"][0]
    processor.save_pretrained(tmp_path)
    size = theirs.shape[1:]
    save_model(build_ours("ViT-Mi/8", {"image_size": size}), tmp_path / "m", format="huggingface")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    save_file(weights, tmp_path / "model.safetensors")  # without what we say of it
    (tmp_path / "m" / "config.json").rename(tmp_path / "config.json")
    preprocessing = load_model(tmp_path).preprocessing
    assert {field: getattr(preprocessing, field) for field in expected} == expected
    mean, std = (np.array(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    ours = (preprocess(pixels, preprocessing).transpose(2, 0, 1) / 255 - mean) / std
    level = (1 / 255 / std).max()
    # Pillow and torch round between the two sides that they resize.
    np.testing.assert_allclose(ours, theirs, atol=2.001 * level, rtol=0)
    assert np.abs(ours - theirs).mean() < level / 3


WRITTEN: list[Fields] = [
    {"resize": "squash"},
    {"resize": "squash", "crop_share": 0.8, "interpolation": "bicubic"},
    {"resize": "shorter", "crop_share": 0.75, "mean": (0.1, 0.2, 0.3)},
    {"resize": "shorter", "interpolation": "bicubic"},
]


@pytest.mark.parametrize("fields", WRITTEN, ids=str)
def test_transformers_makes_of_images_what_we_do(
    transformers: ModuleType, tmp_path: Path, fields: Fields
) -> None:
    model = build_ours("ViT-Mi/8", {"image_size": 24})
    model.preprocessing = Preprocessing(size=(24, 24), geometry="huggingface", **fields)
    save_model(model, tmp_path / "m", format="huggingface")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "m", backend="pil")
    pixels = smooth_pixels()
    theirs = processor(images=pixels, return_tensors="np")["pixel_values"][0]
    mean, std = (np.array(v)[:, None, None] for v in (model.preprocessing.mean, (0.5,) * 3))
    ours = (preprocess(pixels, model.preprocessing).transpose(2, 0, 1) / 255 - mean) / std
    np.testing.assert_allclose(ours, theirs, atol=1.001 / 127.5, rtol=0)
    weights = load_file(tmp_path / "m" / "model.safetensors")
    save_file(weights, tmp_path / "m" / "model.safetensors")  # without what we say of it
    assert load_model(tmp_path / "m").preprocessing == model.preprocessing


DEFAULTS: dict[str, Fields] = {
    "ViTForImageClassification": {"resize": "squash", "crop_share": 1.0, "mean": (0.5,) * 3},
    "DeiTForImageClassification": {
        "resize": "squash", "crop_share": 224 / 256, "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
    },
    "Dinov2WithRegistersForImageClassification": {
        "resize": "shorter", "crop_share": 224 / 256, "std": (0.229, 0.224, 0.225),
    },
    "BitForImageClassification": {"resize": "shorter", "crop_share": 1.0, "mean": (0.5,) * 3},
}  # fmt: skip


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("architecture", DEFAULTS)
def test_without_a_processor_the_published_weights_are_followed(
    tmp_path: Path, architecture: str, stated: bool
) -> None:
    save_model(build_ours(*OURS[architecture]), tmp_path / "m", format="huggingface")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    save_file(weights, tmp_path / "m" / "model.safetensors")  # without what we say of it
    (tmp_path / "m" / "preprocessor_config.json").unlink()
    fields: Fields = {}
    if not stated:
        (tmp_path / "m" / "config.json").unlink()
        fields = {} if "Bit" in architecture else {"num_heads": 2}
        if architecture in ("ViTForImageClassification", "DeiTForImageClassification"):
            fields["image_size"] = (24, 32)
    preprocessing = load_model(tmp_path / "m", **fields).preprocessing
    wanted = DEFAULTS[architecture]
    assert {field: getattr(preprocessing, field) for field in wanted} == wanted
    assert preprocessing.geometry == "huggingface"


def test_older_processors_state_plain_numbers(folder: Path) -> None:
    old = {"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "resample": 3,
           "do_center_crop": True, "crop_size": 224}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(old))
    read = load_model(folder).preprocessing
    assert (read.resize, read.crop_share, read.size) == ("squash", 224 / 256, (64, 64))
    edit_json(folder / "preprocessor_config.json", feature_extractor_type="BitFeatureExtractor")
    assert load_model(folder).preprocessing.resize == "shorter"
    edit_json(folder / "preprocessor_config.json", resample=1)
    assert load_model(folder).preprocessing.interpolation == "bicubic"


@pytest.mark.parametrize(
    "processor",
    [
        {"size": {"shortest_edge": 64}, "crop_size": {"height": 16, "width": 64}},
        {"size": {"height": 40, "width": 60}, "crop_size": {"height": 20, "width": 60}},
    ],
)
def test_a_crop_of_other_shares_down_and_across_is_said(
    caplog: pytest.LogCaptureFixture, processor: dict[str, Any]
) -> None:
    read_processor(processor | {"do_center_crop": True}, size=(16, 64), channels=3)
    assert "which has no place here: they will see more or less" in caplog.text


@pytest.mark.parametrize("change", [{"size": {"shortest_edge": 0}}, {"rescale_factor": 0}])
def test_a_processor_of_nonsense_is_told(tmp_path: Path, change: dict[str, Any]) -> None:
    save_model(build_small("ViT", image_size=32), tmp_path / "m", format="huggingface")
    path = tmp_path / "m" / "preprocessor_config.json"
    crop = {"do_center_crop": True, "crop_size": {"height": 8, "width": 8}}
    path.write_text(json.dumps(json.loads(path.read_text()) | crop | change))
    weights = tmp_path / "m" / "model.safetensors"
    save_file(load_file(weights), weights)
    with pytest.raises(ModelFileError, match="its tensors make no model"):
        load_model(tmp_path / "m")
