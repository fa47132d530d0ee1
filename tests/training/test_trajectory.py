"""From official weights the loop follows the official trajectories, with micro-batches too."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.runs import run_steps

from vitral.config.run import (
    DataSettings,
    OptimizerSettings,
    RunConfig,
    ScheduleSettings,
    TrainSettings,
)
from vitral.data.loader import StepBatches
from vitral.data.order import plan_step
from vitral.models.weights.load import load_model
from vitral.runtime.distributed import Distributed, Machine
from vitral.training.objectives.classification import Classification, ClassificationSettings
from vitral.training.optimizer import build_optimizer
from vitral.training.state import TrainState

CPU = torch.device("cpu")
NAMES = ("finetune_sgd", "finetune_sgd_random_head", "pretrain_adam", "pretrain_adam_wd_all")


class OfficialBatches:
    """The batches of a fixture, in micro-batches."""

    steps_per_epoch = 1

    def __init__(self, images: np.ndarray, labels: np.ndarray, *, size: int) -> None:
        self._images = torch.from_numpy(images).permute(0, 1, 4, 2, 3) * 127.5 + 127.5
        self._labels = torch.from_numpy(labels)
        self._size = size

    def steps(self, first: int, end: int) -> Iterator[StepBatches]:
        for step in range(first, min(end, len(self._images))):  # they end before the schedule
            plan = plan_step(step, num_examples=len(self._images), batch_size=1)
            images, labels = (
                array[step].split(self._size) for array in (self._images, self._labels)
            )
            yield StepBatches(
                plan,
                [
                    {"image": i, "label": k, "valid": torch.ones(len(i), dtype=torch.bool)}
                    for i, k in zip(images, labels, strict=True)
                ],
                sum(map(len, images)),
            )


def settings_of(config: dict[str, Any]) -> tuple[OptimizerSettings, ScheduleSettings]:
    if config["optimizer"] == "sgd":
        optimizer = OptimizerSettings(
            name="sgd",
            learning_rate=config["base_lr"],
            momentum=config["momentum"],
            weight_decay=0.0,
            clip_norm=config["clip_global_norm"],
        )
        return optimizer, ScheduleSettings(config["decay"], warmup_steps=config["warmup_steps"])
    optimizer = OptimizerSettings(
        learning_rate=config["lr"],
        weight_decay=config["wd_equivalent_torch_adamw"],
        decayed="all" if config["wd_mults"] == [[".*", 1.0]] else "kernels",
        clip_norm=config["clip_global_norm"],
    )
    schedule = config["schedule"]
    return optimizer, ScheduleSettings(
        schedule["decay_type"],
        warmup_steps=schedule["warmup_steps"],
        end=schedule.get("linear_end", 0.0),
    )


@pytest.mark.parametrize("piece", [8, 3])
@pytest.mark.parametrize("name", NAMES)
def test_training_follows_the_official_trajectory(shared: Path, name: str, piece: int) -> None:
    folder = shared / "reference"
    with np.load(folder / f"{name}.io.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    config = json.loads(str(arrays["config"]))
    model = load_model(folder / f"{name}.init.weights.npz")
    official = load_model(folder / f"{name}.final.weights.npz").state_dict()
    optimizer, schedule = settings_of(config)
    run = RunConfig(
        DataSettings(name),
        TrainSettings(config["total_steps"]),
        model.preprocessing,
        None,
        optimizer=optimizer,
        schedule=schedule,
    )
    loss = "softmax" if config["loss"] == "softmax_xent" else "sigmoid"
    objective = Classification(model, ClassificationSettings(loss))
    state = TrainState(objective, build_optimizer(objective, optimizer, device=CPU), None)
    batches: Any = OfficialBatches(arrays["image"], arrays["labels"], size=piece)
    machine = Machine(CPU, torch.float32, compile=False, ranks=Distributed())
    results = run_steps(state, batches, config=run, machine=machine)
    losses = [result.loss_sum / result.num_examples for result in results]
    np.testing.assert_allclose(losses, arrays["loss"], atol=1e-5)
    np.testing.assert_allclose([r.grad_norm for r in results], arrays["grad_norm"], rtol=1e-5)
    np.testing.assert_allclose([r.learning_rate for r in results], arrays["lr"], atol=1e-8)
    width, tolerance = model.config.embed_dim, 5e-6 if optimizer.name == "sgd" else 1e-5
    for key, tensor in model.state_dict().items():
        difference = (tensor - official[key]).abs()
        if key.endswith("qkv.bias"):  # the key's true gradient is zero: its rounding noise differs
            difference = torch.cat([difference[:width], difference[2 * width :]])
        assert difference.max() < tolerance, key


def smoothed(share: float) -> Classification:
    settings = ClassificationSettings(label_smoothing=share)
    return Classification(torch.nn.Identity(), settings).train()


def test_one_hot_targets_and_labels_give_the_same_loss() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    softmax = smoothed(0.1)
    plain = {"label": labels}
    mixed = {"label": labels, "mix_label": labels.flip(0), "mix_share": torch.ones(6)}
    torch.testing.assert_close(softmax.losses(logits, plain), softmax.losses(logits, mixed))


def test_smoothing_and_mixing_make_the_stated_targets() -> None:
    objective = smoothed(0.2)
    batch = {
        "label": torch.tensor([0]),
        "mix_label": torch.tensor([2]),
        "mix_share": torch.tensor([0.75]),
    }
    targets = objective.mixed_targets(batch, num_classes=4)
    torch.testing.assert_close(targets, torch.tensor([[0.65, 0.05, 0.25, 0.05]]))
    torch.testing.assert_close(
        objective.eval().mixed_targets(batch, num_classes=4), torch.tensor([[0.75, 0.0, 0.25, 0.0]])
    )


def test_the_accuracy_of_a_mixed_image_is_that_of_its_larger_part() -> None:
    objective = smoothed(0.0)
    batch = {
        "image": torch.eye(4)[[0, 0, 1]],
        "label": torch.tensor([0, 0, 0]),
        "mix_label": torch.tensor([1, 1, 1]),
        "mix_share": torch.tensor([0.9, 0.2, 0.2]),
    }
    _, metrics = objective(batch)
    assert metrics["accuracy"].tolist() == [1.0, 0.0, 1.0]
