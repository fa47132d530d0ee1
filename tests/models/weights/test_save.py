"""Where a model may be written, and what has no place in a format."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_models import SMALL_RESNET, build_small

from vitral.config.resnet import V1_FIELDS
from vitral.errors import RequestError
from vitral.models.weights.load import load_model
from vitral.models.weights.save import WRITABLE, save_model


@pytest.mark.parametrize("wanted", ["onnx", "offical"])
def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path, wanted: str) -> None:
    with pytest.raises(
        RequestError,
        match=f"format='{wanted}' can't be written: (use one of|did you mean) .*offici",
    ):
        save_model(build_small(), tmp_path / "model", format=wanted)
    assert "vitral" in WRITABLE


REFUSALS: list[tuple[str, dict[str, Any], str]] = [
    ("AxialResNet", {}, "it is an AxialResNet"),
    ("AxialViT gap", {}, "it has axial attention"),
    ("ViT", {"position": "2d"}, "it has position='2d'"),
    ("ViT", {"position": "sincos2d"}, "it has position='sincos2d'"),
    ("ViT", {"position_at": "every"}, "it has position_at='every'"),
    ("ViT", {"num_registers": 1}, "it has registers"),
    ("ViT", {"qk_norm": True}, "it has QK-norm"),
    ("ViT", {"layer_scale": 0.1}, "it has LayerScale"),
    ("ViT", {"activation": "swiglu"}, "it has a gated MLP"),
    ("ViT", {"norm_pooled": True}, "it normalises after pooling"),
    ("ViT", {"pool": "token+gap"}, "it has pool='token.gap'"),
    ("ViT", {"pool": "gap", "class_token": True}, "it has a class token that it does not read"),
    ("BiT", {"root_gain": True}, "it has a gain in its root"),
    ("BiT", {"padding": "same"}, "it has padding='same'"),
    ("ResNet v1", {"root_gain": True}, "it has a gain in its root"),
    ("ResNet v1", {"padding": "fixed"}, "it has padding='fixed'"),
    ("hybrid", {"resnet": SMALL_RESNET}, "it has a ResNet of version v2"),
    (
        "hybrid", {"resnet": SMALL_RESNET | V1_FIELDS | {"root_gain": True}},
        "it has a gain in its root",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("family", "fields", "reason"), REFUSALS, ids=str)
def test_what_an_official_file_has_no_place_for_is_refused_with_the_reason(
    tmp_path: Path, family: str, fields: dict[str, Any], reason: str
) -> None:
    model = build_small(family, **fields)
    with pytest.raises(
        RequestError,
        match=f"small can't be written as official: {reason}, for which that format has no place; "
        "use format=vitral",
    ):
        save_model(model, tmp_path / "m.npz", format="official")
    assert list(tmp_path.iterdir()) == []


def test_an_official_file_ends_with_npz(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="an official file ends with .npz: give such a name"):
        save_model(build_small(), tmp_path / "m", format="official")


@pytest.mark.parametrize("name", ["m.npz", "folder"])
def test_what_exists_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.npz").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RequestError, match=f"{name} exists: choose another path"):
        save_model(build_small(), tmp_path / name, format="official")
    assert (tmp_path / "m.npz").read_text() == "mine"


@pytest.mark.parametrize(
    ("family", "fields", "said"),
    [
        ("ViT", {}, []),
        ("ViT", {"activation": "gelu"}, ["computes GELU by tanh, this model exactly"]),
        ("ViT", {"norm_eps": 1e-5}, ["adds 1e-6 in norms, this model 1e-05"]),
        ("hybrid", {}, []),
        ("BiT", {}, []),
        ("BiT", {"pool_padding": "infinite"}, ["has pool_padding='zero' in its ResNet"]),
        (
            "ResNet v1", {"norm_eps": 1e-5, "standardization_eps": 1e-6},
            ["has norm_eps=1e-06 in its ResNet", "has standardization_eps=1e-05 in its ResNet"],
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_the_official_code_computes_otherwise_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, family: str, fields: dict[str, Any],
    said: list[str],
) -> None:  # fmt: skip
    with caplog.at_level(logging.WARNING, logger="vitral"):
        save_model(build_small(family, **fields), tmp_path / "m.npz", format="official")
    messages = [record.getMessage() for record in caplog.records]
    assert "no place for its preprocessing (shorter to" in messages.pop()
    assert len(messages) == len(said)
    assert all(part in message for part, message in zip(said, messages, strict=True))


def test_half_precision_is_written_as_float32(tmp_path: Path) -> None:
    model = build_small("ViT", image_size=32).to(torch.bfloat16)
    save_model(model, tmp_path / "m.npz", format="official")
    with np.load(tmp_path / "m.npz") as archive:
        assert {archive[name].dtype for name in archive.files} == {np.dtype(np.float32)}
    loaded = load_model(tmp_path / "m.npz")
    assert torch.equal(loaded.cls_token, model.cls_token.float())
