import pytest
import torch
from torch import nn

import vitral
from vitral.spec.run import OptimizerSettings
from vitral.train.optimizer import (
    build_optimizer,
    clip_gradients,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)

CPU = torch.device("cpu")


@pytest.fixture
def model() -> nn.Module:
    return vitral.create_model(
        "ViT-Mi/4", image_size=8, embed_dim=16, depth=1, num_heads=2, mlp_dim=32, num_classes=3
    )


def test_every_parameter_is_in_one_group_and_only_kernels_decay(model: nn.Module) -> None:
    optimizer = build_optimizer(model, OptimizerSettings(weight_decay=0.3), device=CPU)
    decayed, rest = (set(group["param_names"]) for group in optimizer.param_groups)
    assert decayed | rest == {name for name, _ in model.named_parameters()}
    assert not decayed & rest
    assert decayed == {
        "embedding.weight",
        "head.weight",
        "blocks.0.attention.qkv.weight",
        "blocks.0.attention.out.weight",
        "blocks.0.mlp.hidden.weight",
        "blocks.0.mlp.out.weight",
    }
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]


# Beside kernels: what is added or looked up, by the field that brings it.
TABLES = {
    "positions.0.rows": {"position": "2d"},
    "positions.0.columns": {"position": "2d"},
    "positions.0.class_place": {"position": "2d"},
    "positions.0.offsets": {"position": "relative"},
    "registers": {"num_registers": 2},
    "attention_pool.probe": {"pool": "map"},
    "cls_token": {},
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_and_tokens_do_not_decay(name: str) -> None:
    model = vitral.create_model(
        "ViT-Mi/4", image_size=8, embed_dim=16, depth=1, num_heads=2, mlp_dim=32, **TABLES[name]
    )
    optimizer = build_optimizer(model, OptimizerSettings(), device=CPU)
    decayed, rest = (set(group["param_names"]) for group in optimizer.param_groups)
    assert name in rest
    assert "blocks.0.attention.qkv.weight" in decayed


def test_convolutions_decay_and_offsets_of_an_axial_resnet_do_not() -> None:
    model = vitral.create_model("AxialResNet50s", stages=(1,), image_size=16)
    optimizer = build_optimizer(model, OptimizerSettings(), device=CPU)
    decayed, rest = (set(group["param_names"]) for group in optimizer.param_groups)
    assert {"root.weight", "stages.0.0.conv1.weight", "stages.0.0.row.qkv.weight"} <= decayed
    assert "stages.0.0.row.offsets" in rest


@pytest.mark.parametrize("norm", [0.5, 1.0, 7.0])
def test_clipping_scales_to_the_norm_and_never_up(norm: float) -> None:
    parameter = nn.Parameter(torch.zeros(4))
    parameter.grad = torch.full((4,), norm / 2)
    measured = clip_gradients([parameter], max_norm=1.0)
    assert measured.item() == pytest.approx(norm)
    assert parameter.grad.norm().item() == pytest.approx(min(norm, 1.0))


def test_clipping_by_zero_only_measures() -> None:
    parameter = nn.Parameter(torch.zeros(4))
    parameter.grad = torch.full((4,), 5.0)
    assert clip_gradients([parameter], max_norm=0.0).item() == pytest.approx(10.0)
    assert parameter.grad.tolist() == [5.0] * 4


def test_lower_layers_get_a_smaller_share_of_the_rate(model: nn.Module) -> None:
    optimizer = build_optimizer(model, OptimizerSettings(layer_decay=0.5), device=CPU)
    set_learning_rate(optimizer, 8.0)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}
    assert rates.keys() == {name for name, _ in model.named_parameters()}
    shown = ("head.weight", "norm.bias", "blocks.0.mlp.hidden.weight", "cls_token")
    assert [rates[name] for name in shown] == [8.0, 8.0, 4.0, 2.0]
    decays = {
        name: group["weight_decay"]
        for group in optimizer.param_groups
        for name in group["param_names"]
    }
    assert [decays[name] for name in shown] == [0.1, 0.0, 0.1, 0.0]


def test_a_module_of_the_callers_own_has_one_rate() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), OptimizerSettings(), device=CPU)
    set_learning_rate(optimizer, 3.0)
    assert [group["lr"] for group in optimizer.param_groups] == [3.0, 3.0]


def test_all_that_is_trained_decays_when_asked(model: nn.Module) -> None:
    optimizer = build_optimizer(model, OptimizerSettings(decayed="all"), device=CPU)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1]


KEPT = {"adamw": "exp_avg_sq", "sgd": "momentum_buffer"}


@pytest.mark.parametrize("name", KEPT)
def test_the_state_comes_back_under_the_names_of_the_weights(model: nn.Module, name: str) -> None:
    settings = OptimizerSettings(name=name)
    optimizer = build_optimizer(model, settings, device=CPU)
    model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()}
    assert f"{KEPT[name]}/blocks.0.mlp.hidden.weight" in saved
    other = build_optimizer(model, settings, device=CPU)
    load_optimizer_tensors(other, saved)
    assert all(torch.equal(saved[n], t) for n, t in optimizer_tensors(other).items())
