import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.small_models import build_small
from torch import nn

import vitral
from vitral.models.model import Model
from vitral.models.weights.provenance import training_data_of, weights_hash
from vitral.training.fingerprint import parts_fingerprint


def test_what_weights_were_trained_on_is_known_from_their_folder_or_the_catalogue(
    tmp_path: Path,
) -> None:
    model = vitral.create_model("ViT-Mi/4", image_size=8, depth=1, num_classes=2)
    model.provenance = {"data": {"name": "birds", "source": "x"}}
    vitral.save_model(model, tmp_path / "model")
    assert training_data_of(vitral.load_model(tmp_path / "model"), "here") == "birds"
    model.provenance["pretrained"] = {"data": "imagenet21k"}
    assert training_data_of(model, "here") == "imagenet21k, then birds"
    model.provenance = {}
    assert training_data_of(model, "here") == ""
    assert training_data_of(model, "google/vit-base-patch16-224").startswith("ImageNet-21k")


def test_it_is_the_sha_256_of_what_each_tensor_is_and_holds() -> None:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0]]))
        model.bias.fill_(0.5)
    parts = [
        b"weight (1, 2) torch.float32", bytes.fromhex("0000803f000000c0"),
        b"bias (1,) torch.float32", bytes.fromhex("0000003f"),
    ]  # fmt: skip
    wanted = hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
    assert weights_hash(model) == wanted


def test_a_model_of_ours_is_told_apart_by_it() -> None:
    model = build_small("ViT")
    assert parts_fingerprint(model, "softmax", {}) == weights_hash(model)


def nudge(model: Model) -> None:
    with torch.no_grad():
        model.head.bias[0] = torch.nextafter(model.head.bias[0], torch.tensor(9.0))


CHANGES: dict[str, Callable[[Model], object]] = {
    "the smallest step of one weight": nudge,
    "another type": lambda model: model.to(torch.bfloat16),
    "another shape": lambda model: setattr(model.head, "bias", nn.Parameter(torch.zeros(5, 1))),
    "another name": lambda model: model.add_module("neck", model.head) or delattr(model, "head"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_weight_is_seen(change: str) -> None:
    model, same = build_small(), build_small().train()
    assert weights_hash(model) == weights_hash(same)
    before = weights_hash(model)
    CHANGES[change](model)
    assert weights_hash(model) != before
