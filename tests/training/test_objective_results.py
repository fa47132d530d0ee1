"""Objectives determine what is saved, scored and published, including all that they own."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.example_objectives import (
    COMMON,
    Masked,
    Regression,
    TwoSources,
    train_example,
    with_classes,
    with_values,
)
from support.runs import pattern_images
from torch import Tensor, nn

import vitral
from vitral.config.run import ObjectiveSettings
from vitral.files.rows import read_rows
from vitral.runtime.distributed import Distributed, Machine
from vitral.training.checkpoint import load_newest
from vitral.training.objectives.base import Loss, Objective, StepInfo, result_names
from vitral.training.objectives.classification import Classification
from vitral.training.optimizer import build_optimizer, clip_gradients, describe_decay
from vitral.training.parallel import parallelise

OPTIONS: dict[str, Any] = {"batch_size": 16, "seed": 4, "quiet": True, "device": "cpu"}
Batch = dict[str, Tensor]


class Worse(Masked):
    """Increases its loss from the fourth step on."""

    def on_gradients(self, at: StepInfo) -> None:
        if at.step >= 3:
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad.neg_()


def write_split_folder(root: Path) -> Path:
    from PIL import Image

    for split, count in (("train", 48), ("validation", 12)):
        (root / split).mkdir(parents=True)
        for number, image in enumerate(pattern_images(count, seed=len(split))[0]):
            Image.fromarray(image).save(root / split / f"{number}.png")
    return root


def test_the_best_model_is_scored_with_the_head_that_it_had(tmp_path: Path) -> None:
    """Scored on the images that selected it, so that its score is known."""
    settings = COMMON | {"model.in_channels": 1, "checkpoint.every_steps": 1}
    result = vitral.train(
        "ViT-Mi/4", write_split_folder(tmp_path / "data"), objective=Worse, steps=9,
        learning_rate=2e-2, output=tmp_path / "run", settings=settings, **OPTIONS,
    )  # fmt: skip
    rows = [row for row in read_rows(result.path / "metrics.jsonl") if row["split"] == "validation"]
    best = min(rows, key=lambda row: row["loss"])
    assert best["step"] < 9 and rows[-1]["loss"] > 1.05 * best["loss"]
    assert result.summary["best_step"] == best["step"]
    assert result.summary["loss"] == pytest.approx(best["loss"], rel=1e-6)
    saved, _ = load_newest(result.path / "checkpoints")
    assert saved is not None
    published = load_file(result.path / "parts" / "decoder" / "model.safetensors")
    for name, tensor in published.items():
        assert torch.equal(tensor, saved.tensors[f"best/decoder.{name}"])
        assert not torch.equal(tensor, saved.tensors[f"objective/decoder.{name}"])


class Composed(nn.Module):
    """A network of parts that an objective owns separately."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.head(self.body(images))
        return features


class Joined(Regression):
    """Publishes its model with an additional layer."""

    def __init__(self, model: nn.Module, settings: ObjectiveSettings | None = None) -> None:
        super().__init__(model, settings)
        self.last = nn.Linear(2, 2)

    def forward(self, batch: Batch) -> Loss:
        off = self.last(self.model(batch["image"])) - batch["target/value"]
        return Loss(off.square().mean(dim=1), {"mae": off.abs().mean(dim=1)})

    def result(self) -> nn.Module:
        return Composed(self.model, self.last)


def test_a_result_made_of_parts_is_saved_averaged_and_shown_again(tmp_path: Path) -> None:
    settings = COMMON | {"train.ema": 0.1, "evaluation.keep_best": False}
    options = OPTIONS | {"steps": 6, "objective": Joined, "settings": settings}
    result = vitral.train("ViT-Mi/4", with_values(), output=tmp_path, **options)
    saved, _ = load_newest(tmp_path / "checkpoints")
    assert saved is not None
    state = result.model.state_dict()
    assert {name.partition(".")[0] for name in state} == {"body", "head"}
    assert torch.equal(state["head.weight"], saved.tensors["average/last.weight"])
    assert not torch.equal(state["head.weight"], saved.tensors["objective/last.weight"])
    weights = load_file(saved.path / "model" / "model.safetensors")
    assert torch.equal(weights["head.weight"], state["head.weight"])
    again = vitral.train("ViT-Mi/4", with_values(), output=tmp_path, **options)
    assert again.summary == result.summary
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_names_of_a_result_lead_to_those_of_the_objective() -> None:
    objective = Joined(nn.Linear(3, 2))
    assert result_names(objective) == {
        "body.weight": "model.weight", "body.bias": "model.bias",
        "head.weight": "last.weight", "head.bias": "last.bias",
    }  # fmt: skip


def test_what_can_not_be_read_of_a_further_source_is_listed(tmp_path: Path) -> None:
    class Broken:
        def __len__(self) -> int:
            return 30

        def __getitem__(self, number: int) -> Any:
            return "nothing" if number == 5 else pattern_images(30, seed=5)[0][number]

    vitral.train(
        "ViT-Mi/4", with_classes(), unlabelled=Broken(), objective=TwoSources, steps=4,
        output=tmp_path, settings=COMMON | {"data.max_unreadable": 0.1}, **OPTIONS,
    )  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "skipped.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == ["unlabelled: 5"]
    assert rows[0]["reason"]


def test_a_classification_of_ones_own_is_scored_as_the_built_in(
    patterns: Path, tmp_path: Path
) -> None:
    class Own(Classification):
        pass

    summaries = []
    for objective in ("softmax", Own):
        result = vitral.train(
            "ViT-Mi/4", patterns, objective=objective, steps=6, settings=COMMON,
            output=tmp_path / str(objective), **OPTIONS,
        )  # fmt: skip
        assert result.model.output == "softmax"
        summaries.append({n: v for n, v in result.summary.items() if "second" not in n})
    known = {"accuracy", "loss", "accuracy_interval", "best_step"}
    assert {n: v for n, v in summaries[0].items() if n in known} == {
        n: v for n, v in summaries[1].items() if n in known
    }


def test_checkpoints_hold_no_twin_of_the_model(tmp_path: Path) -> None:
    """What it answers to is computed once, when the run ends."""
    result = train_example("regression", tmp_path, steps=3)
    assert not list((tmp_path / "checkpoints").rglob("reference*"))
    assert (result.path / "model" / "reference.safetensors").exists()


def test_a_report_without_its_figure_says_so(tmp_path: Path) -> None:
    from vitral.figures.report import write_report

    result = train_example("masked", tmp_path, steps=2)
    summary = json.loads((result.path / "summary.json").read_text())
    summary["loss"] = None
    (result.path / "summary.json").write_text(json.dumps(summary))
    write_report(result.path)
    assert "not known" in (result.path / "report.html").read_text()


def test_processes_of_a_coupled_loss_begin_with_the_same_tensors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[Tensor] = []
    monkeypatch.setattr(Distributed, "broadcast", lambda self, tensors: sent.extend(tensors))

    class Coupled(Objective):
        coupling = "batch"

    objective = Coupled(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    ranks = Distributed(rank=1, world_size=2, local_rank=1)
    machine = Machine(torch.device("cpu"), torch.float32, compile=False, ranks=ranks)
    assert parallelise(objective, machine) is objective
    tensors = objective.state_dict(keep_vars=True).values()
    assert {t.data_ptr() for t in sent} == {t.data_ptr() for t in tensors}
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in objective.modules())


def test_nothing_is_said_of_decay_where_nothing_decays() -> None:
    from vitral.config.run import OptimizerSettings

    def said(decay: float) -> list[str]:
        objective = Regression(nn.Sequential(nn.Linear(2, 2), nn.Embedding(3, 2)))
        settings = OptimizerSettings(learning_rate=0.1, weight_decay=decay)
        optimizer = build_optimizer(objective, settings, device=torch.device("cpu"))
        return describe_decay(objective, optimizer)

    assert said(0.1) and not said(0.0)


def test_a_step_without_gradients_has_the_norm_zero() -> None:
    parameter = nn.Parameter(torch.ones(2))
    assert clip_gradients([parameter], max_norm=1.0).item() == 0.0
    assert clip_gradients([], max_norm=1.0).item() == 0.0


def test_a_shallower_teacher_draws_as_many_numbers_as_it_has() -> None:
    """Beside a deeper student, whose numbers a batch holds."""
    from vitral.models.model import drop_path_from

    def model(depth: int) -> Any:
        torch.manual_seed(depth)
        return vitral.create_model(
            "ViT-Mi/4", image_size=8, embed_dim=16, depth=depth, num_heads=2, mlp_dim=32,
            num_classes=2, in_channels=1, drop_path=0.9,
        ).train()  # fmt: skip

    deep, shallow = model(3), model(1)
    both = nn.ModuleList([deep, shallow])
    uniforms = torch.rand(2, deep.num_drop_paths, generator=torch.Generator().manual_seed(0))
    images = torch.randn(2, 1, 8, 8)
    with drop_path_from(both, uniforms):
        found = shallow.tokens(images)
    shallow.set_drop_path_uniforms(uniforms[:, : shallow.num_drop_paths])
    assert torch.equal(found, shallow.tokens(images))
