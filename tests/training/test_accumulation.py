"""Micro-batches and processes give the gradient and the run of one large batch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.runs import TINY_MODEL, run_steps

from vitral.config.preprocessing import default_preprocessing
from vitral.config.run import AugmentSettings
from vitral.config.settings import build_run_config
from vitral.config.vit import ViTConfig
from vitral.data.dataset import open_dataset
from vitral.data.loader import TrainingBatches
from vitral.models.vit import ViT
from vitral.runtime.distributed import Distributed, Machine
from vitral.training.building import needs_of
from vitral.training.objectives.classification import Classification, ClassificationSettings
from vitral.training.optimizer import build_optimizer
from vitral.training.state import TrainState

STEPS = 20
SETTINGS: dict[str, Any] = TINY_MODEL | {
    "augment.mixup": 0.3, "augment.cutmix": 1.0, "optimizer.learning_rate": 2e-3,
    "model.drop_path": 0.5,
}  # fmt: skip


def run_in_memory(patterns: Path, *, micro_batch_size: int, num_steps: int) -> dict[str, Any]:
    """Train some steps and return the losses, the first gradient norms and the weights."""
    data = open_dataset(patterns)
    config = build_run_config(
        {
            "data.source": str(patterns),
            "train.steps": num_steps,
            "train.batch_size": 24,  # 80 images: the last batch of an epoch has 8
            "train.micro_batch_size": micro_batch_size,
            "model.drop_path": 0.5,
            "augment.mixup": 0.3,
            "augment.cutmix": 1.0,
            "model.name": "tiny",
            "model.patch_size": 4,
            "model.in_channels": 1,
            "model.num_classes": 4,
            **TINY_MODEL,
            **{
                f"preprocessing.{k}": v
                for k, v in vars(default_preprocessing((8, 8), channels=1)).items()
            },
        }
    )
    torch.manual_seed(0)
    assert isinstance(config.model, ViTConfig)
    model = ViT(config.model)
    with torch.no_grad():
        model.head.weight.normal_(std=0.1)
    device = torch.device("cpu")
    objective = Classification(model, ClassificationSettings(label_smoothing=0.1))
    optimizer = build_optimizer(objective, config.optimizer, device=device)
    state = TrainState(objective, optimizer, None)
    batches = TrainingBatches(
        data.splits["train"],
        config.preprocessing,
        AugmentSettings(mixup=0.3, cutmix=1.0),
        seed=0,
        batch_size=24,
        micro_batch_size=micro_batch_size,
        workers=0,
        needs=needs_of(objective),
    )
    machine = Machine(device, torch.float32, compile=False, ranks=Distributed())
    results = run_steps(state, batches, config=config, machine=machine)
    return {
        "losses": [result.loss_sum / result.num_examples for result in results],
        "norms": [result.grad_norm for result in results],
        "counts": [result.num_examples for result in results],
        "weights": model.state_dict(),
    }


def assert_same_training(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Assert that two runs are as equal as interface.md promises."""
    np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-5)
    for name, tensor in one["weights"].items():
        difference = (tensor - other["weights"][name]).abs()
        if name.endswith("qkv.bias"):  # the key's true gradient is zero; Adam amplifies its noise
            width = len(difference) // 3
            difference = torch.cat([difference[:width], difference[2 * width :]])
        assert difference.max() < 1e-5, name


@pytest.mark.parametrize("micro_batch_size", [2, 6, 10])
def test_micro_batches_train_as_one_large_batch(patterns: Path, micro_batch_size: int) -> None:
    whole = run_in_memory(patterns, micro_batch_size=0, num_steps=STEPS)
    parts = run_in_memory(patterns, micro_batch_size=micro_batch_size, num_steps=STEPS)
    assert whole["counts"][:4] == [20, 20, 20, 20]
    np.testing.assert_allclose(parts["norms"][0], whole["norms"][0], rtol=1e-6)
    assert_same_training(whole, parts)


def test_gradient_of_micro_batches_equals_that_of_the_batch(patterns: Path) -> None:
    """The last partial batch too: its norm, before any update could hide a scale, is compared."""
    whole = run_in_memory(patterns, micro_batch_size=0, num_steps=4)
    parts = run_in_memory(patterns, micro_batch_size=6, num_steps=4)
    np.testing.assert_allclose(parts["norms"], whole["norms"], rtol=1e-5)


def run_command(
    patterns: Path, output: Path, *, processes: int, epochs: int = 5
) -> subprocess.CompletedProcess[str]:
    """Train from the command line with a number of processes."""
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += [
            "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m",
        ]  # fmt: skip
    sets = [f"--set={path}={value}" for path, value in SETTINGS.items()]
    command = [
        *launcher, "vitral", "train", str(patterns), "--model", "ViT-Mi/4", "--epochs", str(epochs),
        "--batch-size", "24", "--device", "cpu", "--output", str(output), "--json", *sets,
    ]  # fmt: skip
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.mark.slow
def test_two_processes_train_as_one(patterns: Path, tmp_path: Path) -> None:
    one = run_command(patterns, tmp_path / "one", processes=1)
    two = run_command(patterns, tmp_path / "two", processes=2)
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    summaries = [json.loads(run.stdout) for run in (one, two)]
    assert summaries[0]["num_examples"] == summaries[1]["num_examples"] == 20
    assert summaries[0]["loss"] == pytest.approx(summaries[1]["loss"], rel=1e-4)
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    losses = [[row["loss"] for row in run_rows] for run_rows in rows]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    runs = [
        {
            "losses": run_losses,
            "weights": load_file(tmp_path / name / "model" / "model.safetensors"),
        }
        for run_losses, name in zip(losses, ("one", "two"), strict=True)
    ]
    assert_same_training(*runs)


@pytest.mark.slow
def test_a_share_of_a_batch_may_be_empty(tmp_path: Path) -> None:
    """Three processes and a last batch of two images: one process has a pair, two have nothing."""
    from support.runs import write_patterns

    data = write_patterns(tmp_path / "few.npz", counts=(26, 4, 7))
    three = run_command(data, tmp_path / "three", processes=3, epochs=2)
    one = run_command(data, tmp_path / "one", processes=1, epochs=2)
    assert three.returncode == 0, three.stderr
    assert json.loads(three.stdout)["num_examples"] == 7
    assert json.loads(three.stdout)["loss"] == pytest.approx(
        json.loads(one.stdout)["loss"], rel=1e-4
    )
