"""The built-in objectives, and the abilities of the caller's own."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file
from support.example_objectives import Masked, Regression, with_classes, with_values, without_labels
from support.runs import TINY_MODEL, stopped_at
from torch import Tensor, nn

import vitral
from vitral.errors import RequestError
from vitral.evaluate.evaluate import evaluate
from vitral.models.vit import ViT
from vitral.predict.predictor import Predictor
from vitral.training.checkpoint import load_newest
from vitral.training.objectives.base import Loss, Objective, check_objective
from vitral.training.objectives.classification import Classification
from vitral.training.objectives.table import (
    OBJECTIVES,
    FunctionObjective,
    choose_objective,
    objective_named,
)

OPTIONS: dict[str, Any] = {"steps": 8, "batch_size": 16, "seed": 1, "quiet": True, "device": "cpu"}
Batch = dict[str, Tensor]


class Scaled(nn.Module):
    """A loss with a weight of its own, a parameter that is not trained, and a setting."""

    def __init__(self, *, scale: float = 1.0, trained: bool = True) -> None:
        super().__init__()
        self.scale = scale
        self.log_temperature = nn.Parameter(torch.zeros(4), requires_grad=trained)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["image"]) * self.log_temperature.exp()
        return self.scale * F.cross_entropy(logits, batch["label"], reduction="none")


def plain(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch["image"]), batch["label"], reduction="none")


def train_short(data: Path, output: Path, **options: Any) -> Any:
    given = OPTIONS | options
    given["settings"] = TINY_MODEL | options.get("settings", {})
    return vitral.train("ViT-Mi/4", str(data), output=output, **given)


def grad_norms(run: Path) -> list[float]:
    from vitral.files.rows import read_rows

    rows = read_rows(run / "metrics.jsonl")
    return [row["grad_norm"] for row in rows if row["split"] == "train"]


def test_an_objective_with_weights_of_its_own_trains_and_saves_them(
    patterns: Path, tmp_path: Path
) -> None:
    loss = Scaled()
    train_short(patterns, tmp_path, objective=loss, learning_rate=1e-2)
    assert not torch.equal(loss.log_temperature, torch.zeros(4))
    assert loss.log_temperature.grad is None
    saved, _ = load_newest(tmp_path / "checkpoints")
    assert saved is not None
    saved_tensor = saved.tensors["objective/function.log_temperature"]
    torch.testing.assert_close(saved_tensor, loss.log_temperature.detach())
    assert "optimizer/exp_avg/function.log_temperature" in saved.tensors
    files = load_file(saved.path / "state" / "objective.safetensors")
    assert set(files) == {"function.log_temperature"}


def test_its_gradients_are_zeroed_after_each_step(patterns: Path, tmp_path: Path) -> None:
    """With a rate of almost nothing the weights stay, and so does the norm of each batch.

    Gradients that piled up would make it grow from step to step.
    """
    settings = {"train.log_every_steps": 1, "augment.crop": "none", "augment.flip": False}
    for name, objective in (("module", Scaled()), ("plain", plain)):
        train_short(
            patterns, tmp_path / name, objective=objective, learning_rate=1e-9, settings=settings
        )
    module, other = (grad_norms(tmp_path / name) for name in ("module", "plain"))
    # The head starts at zero: neither temperature nor loss scale move the model's gradient then.
    assert module == pytest.approx(other, rel=1e-3)


def test_weights_that_are_not_trained_spoil_nothing(patterns: Path, tmp_path: Path) -> None:
    frozen = Scaled(trained=False)
    train_short(patterns, tmp_path / "frozen", objective=frozen)
    assert torch.equal(frozen.log_temperature, torch.zeros(4))

    train_short(patterns, tmp_path / "plain", objective=plain)
    one, other = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("frozen", "plain")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_with_weights_of_the_objectives_own_goes_on_with_them(
    patterns: Path, tmp_path: Path
) -> None:
    settings = {"checkpoint.every_steps": 2}
    whole = Scaled()
    train_short(patterns, tmp_path / "whole", objective=whole, settings=settings)
    with stopped_at(5):
        train_short(patterns, tmp_path / "parts", objective=Scaled(), settings=settings)
    again = Scaled()
    train_short(patterns, tmp_path / "parts", objective=again, settings=settings)
    assert torch.equal(again.log_temperature, whole.log_temperature)


def closure(temperature: float) -> Any:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["image"]) / temperature
        return F.cross_entropy(logits, batch["label"], reduction="none")

    return loss


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda: Scaled(scale=1.0), lambda: Scaled(scale=100.0)),
        (lambda: closure(1.0), lambda: closure(0.1)),
    ],
    ids=["a setting of the object", "a value closed over"],
)
def test_an_objective_of_another_value_is_another_run(
    patterns: Path, tmp_path: Path, first: Any, second: Any
) -> None:
    before = train_short(patterns, tmp_path, objective=first())
    assert train_short(patterns, tmp_path, objective=first()).summary == before.summary
    with pytest.raises(RequestError, match="another model, objective or metric of your own"):
        train_short(patterns, tmp_path, objective=second())


def bce(model: nn.Module, batch: Batch) -> Tensor:
    logits = model(batch["image"])
    marks = F.one_hot(batch["label"], logits.shape[1]).float()
    return F.binary_cross_entropy_with_logits(logits, marks, reduction="none").sum(dim=1)


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch["image"]), batch["label"], label_smoothing=0.1)


def focal(model: nn.Module, batch: Batch) -> Tensor:
    right = model(batch["image"]).softmax(dim=1).gather(1, batch["label"][:, None])[:, 0]
    return -((1 - right) ** 2) * right.clamp_min(1e-9).log()


def mean_bce(model: nn.Module, batch: Batch) -> Tensor:
    logits = model(batch["image"])
    marks = F.one_hot(batch["label"], logits.shape[1]).float()
    return F.binary_cross_entropy_with_logits(logits, marks)


def squared(model: nn.Module, batch: Batch) -> Tensor:
    logits = model(batch["image"])
    return (logits - F.one_hot(batch["label"], logits.shape[1])).square().mean(dim=1)


def by_features(model: nn.Module, batch: Batch) -> Tensor:
    logits = model.classify(model.features(batch["image"]))  # type: ignore[operator]
    return F.cross_entropy(logits, batch["label"])


def small_model(*, scale: float = 1.0) -> ViT:
    torch.manual_seed(0)
    model = vitral.create_model(
        "ViT-Mi/4", image_size=8, embed_dim=16, depth=1, num_heads=2, mlp_dim=32, num_classes=4,
        in_channels=1,
    )  # fmt: skip
    assert isinstance(model, ViT)
    assert isinstance(model.head, nn.Linear)
    nn.init.normal_(model.head.weight, std=scale)
    return model


def some_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.randn(6, 1, 8, 8, generator=generator),
        "label": torch.tensor([0, 1, 2, 3, 0, 1]),
        "valid": torch.ones(6, dtype=torch.bool),
    }


@pytest.mark.parametrize(
    ("function", "output", "reason"),
    [
        (cross_entropy, "softmax", "stays when all logits of an image rise"),
        (focal, "softmax", "stays when"),
        (bce, "sigmoid", "grows evenly when all logits of an image rise"),
        (mean_bce, "sigmoid", "grows evenly"),
        (squared, "softmax", "does not tell"),
        (by_features, "softmax", "does not call the model itself"),
    ],
)
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_a_loss_tells_how_logits_become_probabilities(
    function: Any, output: str, reason: str, scale: float
) -> None:
    objective = FunctionObjective(small_model(scale=scale), function=function)
    batch, before = some_batch(), torch.get_rng_state()
    (note,) = objective.begin(batch)
    assert isinstance(objective.model, ViT)
    assert objective.output == objective.model.output == output
    assert reason in note and f"by {output}" in note and "set objective.output if not" in note
    assert torch.equal(torch.get_rng_state(), before)
    assert objective.training and objective.model.training
    assert not objective.model._forward_hooks


def test_what_a_model_states_stands_where_the_loss_does_not_tell() -> None:
    model = small_model()
    model.output = "sigmoid"
    objective = FunctionObjective(model, function=squared)
    objective.begin(some_batch())
    assert objective.output == model.output == "sigmoid"


def test_a_person_may_state_the_output() -> None:
    settings = FunctionObjective.settings_type(output="softmax")  # type: ignore[call-arg]
    objective = FunctionObjective(small_model(), settings, function=bce)
    assert objective.begin(some_batch()) == []
    assert objective.output == "softmax"
    with pytest.raises(RequestError, match="output='relu'"):
        FunctionObjective.settings_type(output="relu")  # type: ignore[call-arg]


def test_the_callers_own_binary_cross_entropy_predicts_by_sigmoids(
    patterns: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train_short(patterns, tmp_path, objective=bce, quiet=False)
    assert "objective bce: logits become probabilities by sigmoid" in capsys.readouterr().err
    model = vitral.load_model(result.path)
    assert model.output == "sigmoid"
    images = torch.randn(3, 1, 8, 8)
    logits = model.eval()(images)
    torch.testing.assert_close(model.probabilities(logits), logits.sigmoid())
    answer = Predictor(result.path)([torch.zeros(8, 8).numpy().astype("uint8")])[0]
    assert sum(share for _, share in answer.top) != pytest.approx(1.0, abs=1e-3)
    scored = evaluate(result.path, str(patterns)).summary
    assert scored["loss"] == pytest.approx(result.summary["loss"], rel=1e-5)
    again = train_short(patterns, tmp_path, objective=bce)
    assert again.model.output == "sigmoid"
    settings = yaml.safe_load((tmp_path / "config.yaml").read_text())["settings"]
    assert settings["objective"] == {"name": "bce", "output": "auto"}


def test_every_objective_has_a_class_and_settings() -> None:
    for name in OBJECTIVES:
        kind = objective_named(name)
        assert issubclass(kind, Objective)
        assert kind.settings_type(name).name == name
    with pytest.raises(RequestError, match="no objective 'softmaxx': did you mean 'softmax'"):
        objective_named("softmaxx")


def test_what_may_be_given_in_place_of_a_name() -> None:
    assert choose_objective(Masked).kind is Masked
    assert choose_objective(bce).kind is FunctionObjective
    assert choose_objective(Scaled()).name == "Scaled"
    with pytest.raises(RequestError, match="owns a model already: give the class"):
        choose_objective(Classification(nn.Identity()))
    with pytest.raises(RequestError, match="an objective of type int: give a name"):
        choose_objective(3)


class Silent(Objective):
    """Says nothing of its loss."""


@pytest.mark.parametrize(
    ("call", "missing"),
    [("forward", "forward"), ("weights", "them"), ("encode", "it"), ("couple", "it")],
)
def test_what_an_objective_lacks_is_told(call: str, missing: str) -> None:
    with pytest.raises(RequestError, match=f"Silent .*: define {missing}"):
        getattr(Silent(nn.Linear(1, 1)), call)({})


def test_an_objective_that_the_loop_can_not_train_is_refused() -> None:
    odd = Silent(nn.Linear(1, 1))
    odd.coupling = "pairs"  # type: ignore[misc]
    with pytest.raises(RequestError, match="coupling='pairs': give one of example, weighted"):
        check_objective(odd)
    with pytest.raises(RequestError, match="no parameter that requires a gradient"):
        check_objective(Silent(nn.Identity()))


class SplitFeatures(Objective):
    """A loss of two parts that says nothing of its outputs."""

    coupling = "weighted"

    def weights(self, batch: Batch) -> Tensor:
        return torch.ones(6, 2)

    def forward(self, batch: Batch) -> Loss:
        return Loss(torch.ones(6, 2), {})


def test_a_loss_of_parts_must_say_what_is_scored() -> None:
    with pytest.raises(RequestError, match="loss of several parts: define its outputs"):
        SplitFeatures(nn.Linear(1, 1)).outputs({}, final=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"settings": {"objective.hiden": 0.5}}, "objective.hiden has no effect on the objective "
         "'Masked': did you mean 'objective.hidden'"),
        ({"settings": {"objective.hidden": "much"}}, "objective.hidden='much': give a number"),
        ({"settings": {"augment.mixup": 0.2}}, "augment.mixup=0.2 mixes images with their classes"),
        ({"unlabelled": [1]}, "unlabelled data has no effect on the objective 'Masked'"),
        ({"settings": {"evaluation.keep_best": True, "evaluation.best_by": "accuracy"}},
         "best_by='accuracy': the objective is judged by loss"),
    ],
)  # fmt: skip
def test_what_has_no_place_with_an_objective_is_told(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    options = copy.copy(options)
    settings = TINY_MODEL | options.pop("settings", {})
    with pytest.raises(RequestError, match=said):
        vitral.train(
            "ViT-Mi/4", without_labels(), objective=Masked, output=tmp_path, settings=settings,
            **OPTIONS, **options,
        )  # fmt: skip


def test_a_source_that_an_objective_needs_is_asked_for(tmp_path: Path) -> None:
    from support.example_objectives import TwoSources

    with pytest.raises(RequestError, match="learns from unlabelled examples too: give them as"):
        vitral.train(
            "ViT-Mi/4", with_classes(), objective=TwoSources, output=tmp_path, settings=TINY_MODEL,
            **OPTIONS,
        )  # fmt: skip


def test_randaugment_is_refused_beside_masks(tmp_path: Path) -> None:
    from support.example_objectives import Pixels, with_masks

    with pytest.raises(RequestError, match="randaugment=2 moves pixels, which the masks of"):
        vitral.train(
            "ViT-Mi/4", with_masks(), objective=Pixels, output=tmp_path,
            settings=TINY_MODEL | {"augment.randaugment": 2}, **OPTIONS,
        )  # fmt: skip


def test_a_module_of_the_callers_own_gives_what_the_objective_asks_for(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(RequestError, match=r"shape \(2, 3\) for 2 images of 2 classes"):
        vitral.train(
            net, with_values(), objective=Regression, image_size=8, output=tmp_path, **OPTIONS
        )
