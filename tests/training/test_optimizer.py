import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.small_models import FAMILIES, build_small
from torch import nn

import vitral
from vitral.config.run import OptimizerSettings, ScheduleSettings
from vitral.training.optimizer import (
    build_optimizer,
    clip_each,
    clip_gradients,
    decayed_names,
    learning_rate_share,
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


# What decayed before names were asked of the modules: two axes or more, but for these names.
_TABLES = re.compile(r"(^|\.)(cls_token|registers|probe|positions|offsets)(\.|$)")
OPTIONS: list[dict[str, Any]] = [
    *({"position": p} for p in ("none", "1d", "2d", "sincos2d", "relative")),
    *({"position": p, "position_at": at} for p in ("1d", "2d") for at in ("every", "shared")),
    {"position": "relative", "relative_per_head": True},
    {"pool": "map", "class_token": True},
    {"pool": "gap", "num_registers": 2},
    {"pool": "token+gap"},
    {"pool": "token+register", "num_registers": 1},
    {"qk_norm": True, "layer_scale": 0.1, "representation_size": 6},
    {"activation": "swiglu", "norm_pooled": True},
    {"num_classes": 0},
]


@pytest.mark.parametrize(
    ("family", "fields"),
    [*((family, {}) for family in FAMILIES), *(("ViT", fields) for fields in OPTIONS)],
    ids=str,
)
def test_what_modules_state_decays_as_by_the_names_that_were_listed(
    family: str, fields: dict[str, Any]
) -> None:
    model = build_small(family, **fields)
    parameters = dict(model.named_parameters())
    listed = {n for n, p in parameters.items() if p.ndim >= 2 and not _TABLES.search(n)}
    assert decayed_names(model) == listed
    assert listed < set(parameters)
    assert model.no_weight_decay() <= set(parameters)


class Reconstruction(nn.Module):
    """Parameters that an objective may own besides a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 16))
        self.kernel_weight = nn.Parameter(torch.zeros(3, 3))
        self.decoder = nn.MultiheadAttention(16, 2)
        self.memory = nn.LSTM(4, 3)
        self.last = nn.utils.parametrizations.weight_norm(nn.Linear(16, 5))
        self.prototypes = nn.Embedding(7, 16)

    def no_weight_decay(self) -> set[str]:
        """Name the table, which torch calls a weight."""
        return {"prototypes.weight"}


def test_kernels_beside_the_model_decay_and_a_bare_token_does_not(model: nn.Module) -> None:
    decayed = decayed_names(Reconstruction(model))
    others = {name for name in decayed if not name.startswith("model.")}
    assert {f"model.{name}" for name in decayed_names(model)} == decayed - others
    assert others == {
        "kernel_weight",
        "decoder.in_proj_weight",
        "decoder.out_proj.weight",
        "memory.weight_ih_l0",
        "memory.weight_hh_l0",
        "last.parametrizations.weight.original0",
        "last.parametrizations.weight.original1",
    }


@pytest.mark.parametrize("norm", [0.5, 1.0, 7.0])
def test_clipping_scales_to_the_norm_and_never_up(norm: float) -> None:
    parameter = nn.Parameter(torch.zeros(4))
    parameter.grad = torch.full((4,), norm / 2)
    measured = clip_gradients([parameter], max_norm=1.0)
    assert measured.item() == pytest.approx(norm)
    assert parameter.grad.norm().item() == pytest.approx(min(norm, 1.0))


def test_each_tensor_may_be_clipped_by_itself() -> None:
    """The small one stays unchanged; a global norm would scale it too."""
    small, large = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    small.grad, large.grad = torch.tensor([0.3, 0.4]), torch.tensor([3.0, 4.0])
    clip_each([small, large], max_norm=1.0)
    torch.testing.assert_close(small.grad, torch.tensor([0.3, 0.4]))
    torch.testing.assert_close(large.grad, torch.tensor([0.6, 0.8]))


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


@pytest.mark.parametrize("name", ["finetune_sgd", "finetune_sgd_random_head"])
def test_schedule_equals_the_official_one(shared: Path, name: str) -> None:
    with np.load(shared / "reference" / f"{name}.io.npz") as fixture:
        config, official = json.loads(str(fixture["config"])), fixture["lr_schedule"]
    settings = ScheduleSettings(decay=config["decay"], warmup_steps=config["warmup_steps"])
    total = config["total_steps"]
    ours = [
        config["base_lr"] * learning_rate_share(step, total_steps=total, settings=settings)
        for step in range(total + 1)
    ]
    np.testing.assert_allclose(ours, official, atol=1e-7)


def test_linear_schedule_of_big_vision_has_an_end_share(shared: Path) -> None:
    with np.load(shared / "reference" / "pretrain_adam.io.npz") as fixture:
        config, official = json.loads(str(fixture["config"])), fixture["schedule"]
    schedule = config["schedule"]
    settings = ScheduleSettings(
        decay="linear", warmup_steps=schedule["warmup_steps"], end=schedule["linear_end"]
    )
    total = config["total_steps"]
    ours = [learning_rate_share(s, total_steps=total, settings=settings) for s in range(total + 1)]
    np.testing.assert_allclose(ours, official, atol=1e-6)


@given(
    step=st.integers(0, 1000),
    warmup=st.integers(0, 99),
    decay=st.sampled_from(["cosine", "linear", "constant", "multistep"]),
    end=st.floats(0, 1),
)
def test_learning_rate_stays_between_zero_and_the_peak(
    step: int, warmup: int, decay: str, end: float
) -> None:
    settings = ScheduleSettings(
        decay=decay,
        milestones=(0.3, 0.6) if decay == "multistep" else (),
        warmup_steps=warmup,
        end=end if decay in ("cosine", "linear") else 0.0,
    )
    assert 0 <= learning_rate_share(step, total_steps=1000, settings=settings) <= 1


def test_warm_up_begins_at_zero_and_ends_at_the_peak() -> None:
    settings = ScheduleSettings(warmup_steps=10)
    assert learning_rate_share(0, total_steps=100, settings=settings) == 0
    assert learning_rate_share(10, total_steps=100, settings=settings) == 1


@pytest.mark.parametrize(
    ("total", "warmup", "drops"),
    [
        (500, 100, (200, 300, 400)),
        (10_000, 500, (3000, 6000, 9000)),
        (20_000, 500, (6000, 12_000, 18_000)),
    ],
)
def test_milestones_drop_the_rate_where_hyperrule_does(
    total: int, warmup: int, drops: tuple[int, ...]
) -> None:
    """As big_transfer's `bit_hyperrule.get_lr`: after step s of [warm-up, s, s, s, end]."""
    milestones = tuple(drop / total for drop in drops)
    settings = ScheduleSettings("multistep", milestones=milestones, warmup_steps=warmup)

    def rate(step: int) -> float:
        return 0.003 * learning_rate_share(step, total_steps=total, settings=settings)

    assert rate(warmup // 2) == pytest.approx(0.0015)
    for number, drop in enumerate(drops):
        assert rate(drop) == pytest.approx(0.003 * 0.1**number)
        assert rate(drop + 1) == pytest.approx(0.003 * 0.1 ** (number + 1))
    assert rate(total - 1) == pytest.approx(0.003 * 0.1 ** len(drops))
