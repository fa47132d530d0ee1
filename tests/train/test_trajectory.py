"""Optimizer, clipping and schedule on the official weights give the official trajectories."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitral.models.model import Model
from vitral.models.weights.load import load_model
from vitral.spec.run import OptimizerSettings, ScheduleSettings
from vitral.train.objectives.classification import Classification
from vitral.train.optimizer import build_optimizer, clip_gradients, set_learning_rate
from vitral.train.schedule import learning_rate_share


@pytest.fixture
def fixture(shared: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], Model, Model]:
    folder = shared / "reference"
    with np.load(folder / "pretrain_adam.io.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    first = load_model(folder / "pretrain_adam.init.weights.npz")
    last = load_model(folder / "pretrain_adam.final.weights.npz")
    return arrays, json.loads(str(arrays["config"])), first, last


def test_pretraining_follows_the_official_trajectory(
    fixture: tuple[dict[str, np.ndarray], dict[str, Any], Model, Model],
) -> None:
    arrays, config, model, official = fixture
    settings = OptimizerSettings(
        learning_rate=config["lr"], weight_decay=config["wd_equivalent_torch_adamw"]
    )
    schedule = ScheduleSettings(
        decay="linear",
        warmup_steps=config["schedule"]["warmup_steps"],
        end=config["schedule"]["linear_end"],
    )
    objective = Classification(model, loss="sigmoid").train()
    optimizer = build_optimizer(model, settings, device=torch.device("cpu"))
    for step, (image, labels) in enumerate(zip(arrays["image"], arrays["labels"], strict=True)):
        images = torch.from_numpy(image).permute(0, 3, 1, 2).contiguous()
        targets = torch.from_numpy(labels).float()
        logits = objective.model(images)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, targets, reduction="none"
        )
        loss = losses.sum(dim=1).mean()
        loss.backward()
        norm = clip_gradients(model.parameters(), max_norm=config["clip_global_norm"])
        share = learning_rate_share(step, total_steps=config["total_steps"], settings=schedule)
        set_learning_rate(optimizer, config["lr"] * share)
        optimizer.step()
        optimizer.zero_grad()
        assert loss.item() == pytest.approx(arrays["loss"][step], abs=1e-5)
        assert norm.item() == pytest.approx(arrays["grad_norm"][step], rel=1e-5)
    wanted = official.state_dict()
    width = model.config.embed_dim
    for name, tensor in model.state_dict().items():
        difference = (tensor - wanted[name]).abs()
        if name.endswith("qkv.bias"):  # the key's true gradient is zero: its rounding noise differs
            difference = torch.cat([difference[:width], difference[2 * width :]])
        assert difference.max() < 1e-5, name


def test_one_hot_targets_and_labels_give_the_same_loss() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    softmax = Classification(torch.nn.Identity(), label_smoothing=0.1).train()
    plain = {"label": labels}
    mixed = {"label": labels, "mix_label": labels.flip(0), "mix_share": torch.ones(6)}
    torch.testing.assert_close(softmax.losses(logits, plain), softmax.losses(logits, mixed))


def test_smoothing_and_mixing_make_the_stated_targets() -> None:
    objective = Classification(torch.nn.Identity(), label_smoothing=0.2).train()
    batch = {
        "label": torch.tensor([0]),
        "mix_label": torch.tensor([2]),
        "mix_share": torch.tensor([0.75]),
    }
    targets = objective.targets(batch, num_classes=4)
    torch.testing.assert_close(targets, torch.tensor([[0.65, 0.05, 0.25, 0.05]]))
    torch.testing.assert_close(
        objective.eval().targets(batch, num_classes=4), torch.tensor([[0.75, 0.0, 0.25, 0.0]])
    )


def test_the_accuracy_of_a_mixed_image_is_that_of_its_larger_part() -> None:
    objective = Classification(torch.nn.Identity()).train()
    batch = {
        "image": torch.eye(4)[[0, 0, 1]],
        "label": torch.tensor([0, 0, 0]),
        "mix_label": torch.tensor([1, 1, 1]),
        "mix_share": torch.tensor([0.9, 0.2, 0.2]),
    }
    _, metrics = objective(batch)
    assert metrics["accuracy"].tolist() == [1.0, 0.0, 1.0]
