"""Every model family can be trained, resumed and scored."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.checkpoint import checkpoint

import vitral
import vitral.models.model
from vitral.errors import RequestError
from vitral.files.rows import read_rows

VIT = {"model.depth": 2, "model.embed_dim": 16, "model.num_heads": 2, "model.mlp_dim": 32}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("R50x1", {"model.stages": "1,1", "model.width_factor": 0.5}),
    "hybrid": ("R+Ti/16", VIT | {"model.patch_size": 1, "model.drop_path": 0.3}),
    "axial": ("AxialViT-Ti/2", VIT | {"model.position": "2d"}),
    "axial_resnet": ("AxialResNet50s", {"model.stages": "1,1", "model.num_groups": 4}),
}


def train(family: str, data: Path, output: Path, **settings: Any) -> Any:
    name, fields = FAMILIES[family]
    fixed = {"model.image_size": 8, "checkpoint.every_steps": 2} | fields | settings
    return vitral.train(
        name, str(data), output=output, steps=4, batch_size=16, quiet=True, settings=fixed
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_goes_on_to_the_same_weights(family: str, patterns: Path, tmp_path: Path) -> None:
    whole = train(family, patterns, tmp_path / "whole")
    assert whole.summary["num_examples"] == 20
    part = train(family, patterns, tmp_path / "part")
    # As if the process had been killed after its first checkpoint.
    import shutil

    shutil.rmtree(part.path / "checkpoints" / "step-00000004")
    (part.path / "status.json").unlink()
    again = train(family, patterns, part.path)
    weights = [load_file(run.path / "model/model.safetensors") for run in (whole, again)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert vitral.load_model(again.path).verify().agrees
    assert vitral.Predictor(again.path)(torch.zeros(8, 8).byte().numpy())[0].class_name


def test_gradient_checkpointing_changes_no_weight(
    patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(block: Any, *inputs: Any, **how: Any) -> Any:
        calls.append(block)
        return checkpoint(block, *inputs, **how)

    monkeypatch.setattr(vitral.models.model, "checkpoint", counted)
    runs = [
        train("hybrid", patterns, tmp_path / str(flag), **{"train.gradient_checkpointing": flag})
        for flag in (False, True)
    ]
    weights = [load_file(run.path / "model/model.safetensors") for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    # Of one run only: each of two blocks in each of four steps; this ResNet has no units.
    assert len(calls) == 2 * 4


def test_skipped_branches_do_not_depend_on_how_a_batch_is_cut(
    patterns: Path, tmp_path: Path
) -> None:
    runs = [
        train("hybrid", patterns, tmp_path / str(size), **{"train.micro_batch_size": size})
        for size in (0, 4)
    ]
    losses = [[row["loss"] for row in read_rows(run.path / "metrics.jsonl")] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_parts_of_a_batch_are_told_where_there_is_batch_norm(
    patterns: Path, tmp_path: Path
) -> None:
    run = train("axial_resnet", patterns, tmp_path / "run", **{"train.micro_batch_size": 8})
    assert "BatchNorm sees each part of a batch by itself" in (run.path / "log.txt").read_text()


def test_a_recipes_dropout_is_left_out_for_a_model_without_it(
    patterns: Path, tmp_path: Path
) -> None:
    result = vitral.train(
        "R50x1", str(patterns), output=tmp_path / "run", recipe="paper-imagenet", steps=2,
        batch_size=16, quiet=True,
        settings={"model.stages": (1,), "model.image_size": 8, "schedule.warmup_steps": 0},
    )  # fmt: skip
    assert result.model.config.name == "R50x1"


def test_checkpointing_a_model_of_ones_own_is_refused(patterns: Path, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    with pytest.raises(RequestError, match="gradient_checkpointing has no effect on a model"):
        vitral.train(
            model, str(patterns), output=tmp_path / "run", steps=2, quiet=True,
            settings={"train.gradient_checkpointing": True, "preprocessing.size": (8, 8)},
        )  # fmt: skip
