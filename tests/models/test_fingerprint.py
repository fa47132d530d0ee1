import hashlib
from collections.abc import Callable

import pytest
import torch
from small_models import build_small
from torch import nn

from vitral.models.fingerprint import weights_hash
from vitral.models.model import Model
from vitral.train.identity import parts_fingerprint


def test_it_is_the_sha_256_of_what_each_tensor_is_and_holds() -> None:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0]]))
        model.bias.fill_(0.5)
    told = [
        b"weight (1, 2) torch.float32", bytes.fromhex("0000803f000000c0"),
        b"bias (1,) torch.float32", bytes.fromhex("0000003f"),
    ]  # fmt: skip
    wanted = hashlib.sha256(b"\0".join(told)).hexdigest()[:32]
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
