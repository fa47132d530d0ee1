"""Runs, models and results written by Vitral 0.1.0 can be loaded and resumed.

`old_runs` holds runs of ViT-Mi/4 with one block of width 8: one finished, one stopped at step 5 of
12 (and the weights with which it ended where nothing stopped it), one of several labels an image,
one with a function of the caller's own, and rows of results.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from support.runs import pattern_images, write_patterns

import vitral
from vitral.errors import RequestError
from vitral.evaluate.evaluate import evaluate
from vitral.files.results import read_results
from vitral.models.weights.load import load_model

OLD = Path(__file__).parent / "old_runs"
TINY: dict[str, Any] = {
    "model.embed_dim": 8, "model.depth": 1, "model.num_heads": 2, "model.mlp_dim": 16,
    "model.image_size": 8,
}  # fmt: skip
OPTIONS: dict[str, Any] = {
    "steps": 12, "batch_size": 10, "seed": 3, "learning_rate": 3e-3, "quiet": True,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "finished": {"checkpoint.every_steps": 6, "checkpoint.keep": 1},
    "stopped": {
        "checkpoint.every_steps": 4, "checkpoint.keep": 1, "train.ema": 0.1,
        "evaluation.keep_best": True, "model.drop_path": 0.3, "augment.mixup": 0.2,
        "train.micro_batch_size": 6, "train.log_every_steps": 3,
    },
    "several_labels": {"checkpoint.keep": 1, "checkpoint.every_steps": 12},
    "own_function": {"checkpoint.keep": 1, "checkpoint.every_steps": 12},
}  # fmt: skip


def bce(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Any:
    """The function that the run `own_function` was trained with."""
    logits = model(batch["image"])
    targets = F.one_hot(batch["label"], logits.shape[1]).float()
    right = (logits.argmax(dim=1) == batch["label"]).float()
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return losses.sum(dim=1), {"accuracy": right}


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    """The training data of each run, in another folder than originally."""
    patterns = write_patterns(tmp_path / "patterns.npz", counts=(40, 12, 12))
    images, labels = pattern_images(64)
    marks = np.zeros((64, 3), np.uint8)
    marks[np.arange(64), labels % 3] = 1
    marks[:, 2] |= labels == 0
    split = np.repeat(["train", "validation", "test"], (40, 12, 12))
    several = tmp_path / "marks.npz"
    np.savez(several, images=images, labels=marks, split=split, classes=np.array(list("abc")))
    return {name: several if name == "several_labels" else patterns for name in SETTINGS}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A copy, since resuming writes to it."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def train_again(name: str, data: dict[str, Path], runs: Path, **options: Any) -> Any:
    return vitral.train(
        "ViT-Mi/4",
        str(data[name]),
        output=runs / name,
        settings=TINY | SETTINGS[name],
        **OPTIONS,
        **options,
    )


@pytest.mark.parametrize("name", ["finished", "several_labels", "own_function"])
def test_models_load_with_the_logits_that_they_had(name: str) -> None:
    model = load_model(OLD / name)
    assert model.verify().agrees
    assert model.classes is not None and len(model.classes) == model.config.num_classes


def test_the_newest_checkpoint_of_a_stopped_run_is_its_model() -> None:
    assert load_model(OLD / "stopped").verify().agrees


@pytest.mark.parametrize("name", ["finished", "several_labels"])
@pytest.mark.usefixtures("with_report")
def test_a_finished_run_is_shown_not_repeated(name: str, data: dict[str, Path], runs: Path) -> None:
    before = (runs / name / "model" / "model.safetensors").read_bytes()
    result = train_again(name, data, runs)
    assert result.summary == json.loads((OLD / name / "summary.json").read_text())
    assert (runs / name / "model" / "model.safetensors").read_bytes() == before
    assert (runs / name / "report.html").exists()
    assert result.model.output == ("sigmoid" if name == "several_labels" else "softmax")


def test_a_run_with_a_part_of_ones_own_is_refused_with_a_reason(
    data: dict[str, Path], runs: Path
) -> None:
    """The version that began it did not see all that the part can see."""
    before = (runs / "own_function" / "model" / "model.safetensors").read_bytes()
    with pytest.raises(RequestError, match="an earlier version began with a part of your own does"):
        train_again("own_function", data, runs, objective=bce)
    assert (runs / "own_function" / "model" / "model.safetensors").read_bytes() == before


def test_a_stopped_run_goes_on_to_the_end_it_would_have_had(
    data: dict[str, Path], runs: Path
) -> None:
    train_again("stopped", data, runs)
    ended = load_file(runs / "stopped" / "model" / "model.safetensors")
    wanted = load_file(OLD / "stopped_end.safetensors")
    assert ended.keys() == wanted.keys()
    # Softmax doesn't see a bias of the keys: its gradient is rounding, which Adam makes a step.
    for weights in (ended, wanted):
        queries, _, values = weights.pop("blocks.0.attention.qkv.bias").chunk(3)
        weights["queries and values"] = torch.cat([queries, values])
    for name, tensor in wanted.items():  # on another machine the last bits may differ
        torch.testing.assert_close(ended[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["finished", "several_labels"])
def test_a_finished_run_is_scored_on_its_own_test_images(name: str, data: dict[str, Path]) -> None:
    summary = json.loads((OLD / name / "summary.json").read_text())
    result = evaluate(OLD / name, str(data[name]))
    assert result.summary["split"] == "test"
    for figure in ("accuracy", "num_examples", "majority_accuracy"):
        assert result.summary[figure] == summary[figure]
    assert result.summary["loss"] == pytest.approx(summary["loss"], rel=1e-4)


def test_rows_of_results_are_read() -> None:
    rows, damaged = read_results(OLD / "results.jsonl")
    assert not damaged
    assert [(row.data, row.metric) for row in rows] == [
        ("patterns", "accuracy"),
        ("marks", "accuracy"),
    ]
