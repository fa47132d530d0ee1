from pathlib import Path

import pytest
import torch
from torch import nn

import vitral
from vitral.errors import RequestError
from vitral.models.weights.provenance import weights_hash
from vitral.transfer.pretrained import open_source, set_head, starting_model

SMALL = {
    "ViT-S/16": {"image_size": 32, "depth": 2, "representation_size": 24},
    "R50x1": {"image_size": 32, "stages": (1, 1)},
    "R26+ViT-S/32": {"image_size": 64, "depth": 1},
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("num_classes", [3, 7])
def test_the_head_is_new_and_zero_and_the_rest_is_the_sources(name: str, num_classes: int) -> None:
    model = vitral.create_model(name, num_classes=7, **SMALL[name])
    nn.init.normal_(model.head.weight)
    source = open_source(model)
    classes = tuple("abcdefg"[:num_classes])
    start = starting_model(source, classes)
    assert start.classes == classes
    assert not start.head.weight.any() and not start.head.bias.any()
    assert len(start.head.bias) == num_classes
    copied = {
        name: tensor for name, tensor in start.state_dict().items() if not name.startswith("head.")
    }
    original = model.state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in copied.items())
    assert original.keys() - copied.keys() <= {
        "head.weight", "head.bias", "pre_logits.weight", "pre_logits.bias",
    }  # fmt: skip
    assert getattr(start.config, "representation_size", 0) == 0


def test_training_the_start_leaves_the_source_alone() -> None:
    model = vitral.create_model("ViT-Mi/4", image_size=8, depth=1, num_classes=3)
    nn.init.normal_(model.head.weight)
    source = open_source(model)
    start = starting_model(source, ("a", "b", "c"))
    with torch.no_grad():
        for parameter in start.parameters():
            parameter.add_(1)
    assert weights_hash(model) == source.weights


def test_the_resolution_and_dropout_follow_what_is_asked() -> None:
    source = open_source(vitral.create_model("ViT-Mi/4", image_size=8, depth=1, num_classes=3))
    start = starting_model(source, ("a", "b"), image_size=12, dropout=0.1)
    assert start.config.image_hw == start.preprocessing.size == (12, 12)
    assert start.config.dropout == 0.1
    assert start(torch.zeros(1, 3, 12, 12)).shape == (1, 2)


def test_a_source_from_a_run_knows_what_it_was_trained_on(pretrained: Path) -> None:
    source = open_source(pretrained)
    assert source.path == str(pretrained)
    assert source.pretraining == "patterns"
    assert source.weights == weights_hash(source.model)
    assert open_source(pretrained, in_channels=3).model.config.in_channels == 3
    about = starting_model(source, ("a", "b")).provenance["pretrained"]
    assert about == {
        "model": "ViT-Mi/4",
        "path": str(pretrained),
        "weights": source.weights,
        "data": "patterns",
    }


def test_a_head_is_what_it_is_set_to() -> None:
    source = open_source(vitral.create_model("ViT-Mi/4", image_size=8, depth=1, num_classes=3))
    start = starting_model(source, ("a", "b"))
    weights, bias = torch.randn(start.config.feature_dim, 2), torch.randn(2)
    set_head(start, weights, bias)
    features = torch.randn(4, start.config.feature_dim)
    torch.testing.assert_close(start.classify(features), features @ weights + bias)


def test_a_module_of_the_callers_own_is_refused() -> None:
    with pytest.raises(
        RequestError, match="Linear is a model of your own, whose head is not known"
    ):
        open_source(nn.Linear(2, 2))  # type: ignore[arg-type]
