"""Mistakes in the caller's objectives are reported before training."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from support.example_objectives import (
    COMMON,
    EXAMPLES,
    Distilled,
    Masked,
    Regression,
    TwoSources,
    train_example,
    with_classes,
    with_values,
    without_labels,
)
from support.runs import TINY_MODEL, pattern_images
from torch import Tensor, nn

import vitral
from vitral.config.run import ObjectiveSettings
from vitral.data.dataset import ImageDataset
from vitral.data.needs import Needs, View
from vitral.errors import RequestError
from vitral.evaluate.evaluator import Evaluator, MeanEvaluator, Metric, plain_figures
from vitral.models.vit import ViT
from vitral.recipes import Facts
from vitral.recipes.recipe import RECIPES
from vitral.training.objectives.base import Loss, Objective, check_objective
from vitral.training.objectives.table import FunctionObjective, choose_objective
from vitral.training.validation import METRICS, named_metrics

OPTIONS: dict[str, Any] = {"steps": 4, "batch_size": 16, "quiet": True, "device": "cpu"}
Batch = dict[str, Tensor]


class Plain(Objective):
    """Uses only images."""

    label = False

    def forward(self, batch: Batch) -> Loss:
        return Loss(self.model(batch["image"])[:, 0], {})


def needs_of(value: Any) -> type[Objective]:
    class Odd(Plain):
        @property
        def needs(self) -> Any:
            return value(super().needs)

    return Odd


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda needs: {"label": False}, "Odd.needs is dict: give a property of type Needs"),
        (lambda needs: Needs(), "Odd.needs has other labels, targets or sources than the class"),
        (lambda needs: replace(needs, targets=("value",)), "Odd.needs has other labels, targets"),
        (lambda needs: replace(needs, sources={"a": 0.5}), "Odd.needs has other labels, targets"),
    ],
)
def test_needs_agree_with_what_data_is_opened_by(value: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        check_objective(needs_of(value)(nn.Linear(1, 1)))
    check_objective(needs_of(lambda needs: needs)(nn.Linear(1, 1)))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"a/b": nn.Linear(1, 1)}, "Odd.parts has 'a/b': give names of letters and digits"),
        ({"head": torch.zeros(1)}, "Odd.parts has 'head' of type Tensor: give modules"),
    ],
)
def test_parts_are_modules_named_like_folders(parts: Any, words: str) -> None:
    class Odd(Plain):
        def parts(self) -> Any:
            return parts

    with pytest.raises(RequestError, match=words):
        check_objective(Odd(nn.Linear(1, 1)))


def test_a_result_that_nothing_would_save_is_told() -> None:
    class Odd(Plain):
        def result(self) -> nn.Module:
            return nn.Linear(2, 1)

    with pytest.raises(RequestError, match="Odd.result has 'weight', which is no tensor of the ob"):
        check_objective(Odd(nn.Linear(2, 1)))


@pytest.mark.parametrize("given", [F.cross_entropy, nn.CrossEntropyLoss(), nn.Sequential()])
def test_a_loss_of_pytorchs_is_no_objective(given: Any) -> None:
    with pytest.raises(RequestError, match=r"of PyTorch is not called with \(model, batch\): give"):
        choose_objective(given)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (3.0, "the objective 'own' gives a float: return the loss as a tensor, or the loss and a"),
        ({"loss": torch.zeros(2)}, "gives a dict: return the loss as a tensor"),
        ((torch.zeros(2), [1]), "gives a tuple: return the loss"),
        ((torch.zeros(2), {"right": 0.5}), "an objective or metric of type float: return a tensor"),
        (torch.zeros(3), r"an objective or metric of shape \(3,\): return \(2,\), one value an ex"),
        ((torch.zeros(2), {"right": torch.zeros(1)}), r"of shape \(1,\): return \(2,\)"),
    ],
)  # fmt: skip
def test_what_a_function_gives_that_is_no_loss_is_told(result: Any, said: str) -> None:
    objective = FunctionObjective(
        nn.Linear(1, 1), FunctionObjective.settings_type("own"), function=lambda *_: result
    )
    with pytest.raises(RequestError, match=said):
        objective({"valid": torch.ones(2, dtype=torch.bool)})


class Coupled(Plain):
    coupling = "batch"


class Views(Plain):
    @property
    def needs(self) -> Needs:
        return replace(super().needs, views=(View(), View()))


@pytest.mark.parametrize("kind", [Coupled, Views])
def test_a_loss_of_no_single_image_must_say_what_is_scored(kind: type[Objective]) -> None:
    with pytest.raises(RequestError, match="whole batches or of several views, .*: define outputs"):
        kind(nn.Linear(1, 1)).outputs({}, final=False)


def train(data: Any, output: Path, objective: Any, **options: Any) -> Any:
    options = OPTIONS | options
    settings = TINY_MODEL | options.pop("settings", {})
    model = options.pop("model", "ViT-Mi/4")
    return vitral.train(
        model, data, objective=objective, output=output, settings=settings, **options
    )


def test_a_wrong_setting_is_told_before_data_is_opened(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"objective\.hiden has no effect"):
        train(tmp_path / "absent", tmp_path / "run", Masked, settings={"objective.hiden": 0.5})


class Judged(Regression):
    """States a primary metric that it does not compute."""

    def evaluator(self, data: ImageDataset, *, final: bool) -> Evaluator:
        class Other(MeanEvaluator):
            def compute(self) -> dict[str, Any]:
                return {n: v for n, v in super().compute().items() if n != self.primary.name}

        return Other(Metric("distance"))


def test_a_primary_figure_that_is_not_measured_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="judged by 'distance', which it does not measure: it g"):
        train(with_values(), tmp_path, Judged, settings={"evaluation.every_epochs": 1})


def test_a_metric_called_like_the_objectives_own_is_told(tmp_path: Path) -> None:
    def mae(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch["image"])[:, 0]

    with pytest.raises(
        RequestError, match="a metric called 'mae', which the objective measures it"
    ):
        train(
            with_values(), tmp_path, Regression, metrics=mae,
            settings={"evaluation.every_epochs": 1},
        )  # fmt: skip


def test_one_metric_needs_no_list() -> None:
    def mine(model: nn.Module, batch: Batch) -> Tensor:
        return batch["label"]

    assert named_metrics("top5") == {"top5": METRICS["top5"]}
    assert named_metrics(mine) == {"mine": mine}


@pytest.mark.parametrize("name", ["weight", "loss", "num_examples"])
def test_a_metric_called_like_what_rows_have_is_told(name: str) -> None:
    with pytest.raises(RequestError, match=f"your own metrics: a metric called '{name}', which ro"):
        named_metrics({name: METRICS["top5"]})


class Headed(Objective):
    """Has the head itself, with a model without one."""

    def __init__(self, model: nn.Module, settings: ObjectiveSettings | None = None) -> None:
        super().__init__(model, settings)
        assert isinstance(model, ViT)
        self.head = nn.Linear(model.config.embed_dim, 4)

    def forward(self, batch: Batch) -> Loss:
        logits = self.head(self.model(batch["image"]))
        return Loss(F.cross_entropy(logits, batch["label"], reduction="none"), {})


def test_a_model_whose_outputs_are_no_classes_is_saved_without_their_names(tmp_path: Path) -> None:
    train(with_classes(), tmp_path, Headed)
    model = vitral.load_model(tmp_path)
    assert model.config.num_classes == 0 and model.classes is None
    assert model.verify().agrees


KINDS = {"headed": Headed, **{name: example.kind for name, example in EXAMPLES.items()}}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_no_recipe_says_of_an_objective_what_it_can_not_have(
    kind: type[Objective], name: str
) -> None:
    facts = Facts(600_000, 4, (224, 224), "ViT-S/16", 384)
    data: Any = None
    left = kind.fit_recipe(RECIPES[name](facts), {}, data)
    assert not {"augment.mixup", "augment.cutmix", "evaluation.best_within"} & left.keys()
    if "mask" in kind.targets:
        assert "augment.randaugment" not in left
    if kind is Distilled:
        assert "train.ema" not in left
    else:
        assert ("train.ema" in left) == (name == "finetune")


@pytest.mark.parametrize("name", ["regression", "distilled", "aligned"])
def test_a_recipe_of_classifiers_trains_what_is_none(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    vitral.train(
        "ViT-Mi/4", example.data(), objective=example.kind, output=tmp_path, recipe="finetune",
        settings=TINY_MODEL | {"data.validation_share": 0.2}, **OPTIONS,
    )  # fmt: skip
    assert json.loads((tmp_path / "summary.json").read_text())["metric"] == example.primary


def test_figures_become_plain_data() -> None:
    figures = {
        "a": torch.tensor(0.5), "b": np.float32(0.25), "c": np.arange(2), "d": [1], "e": None,
    }  # fmt: skip
    assert plain_figures(figures) == {"a": 0.5, "b": 0.25, "c": [0, 1], "d": [1], "e": None}


def test_an_average_that_no_result_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match="average what is trained, none of which is in the resul"
    ):
        train_example("distilled", tmp_path, train__ema=0.1)


class SeveralToo(TwoSources):
    @classmethod
    def num_outputs(cls, data: ImageDataset, settings: ObjectiveSettings) -> int:
        return 3


def test_images_of_several_classes_have_no_further_source_yet(tmp_path: Path) -> None:
    images, labels = pattern_images(60)
    marks = np.eye(4, dtype=np.uint8)[labels]
    np.savez(tmp_path / "marks.npz", images=images, labels=marks, classes=np.array(list("abcd")))
    with pytest.raises(RequestError, match="beside images of several classes each, which are not"):
        train(
            tmp_path / "marks.npz", tmp_path / "run", SeveralToo, unlabelled=without_labels(),
        )  # fmt: skip


def test_mixing_needs_an_objective_that_reads_it(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cutmix=0\.5 mixes .* does not read so: leave it out"):
        train(
            with_classes(), tmp_path, TwoSources, settings={"augment.cutmix": 0.5},
            unlabelled=without_labels(),
        )  # fmt: skip


def test_settings_of_another_objective_in_a_file_are_left(tmp_path: Path) -> None:
    def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch["image"]), batch["label"])

    first = train(
        with_classes(), tmp_path / "own", cross_entropy, settings={"objective.output": "softmax"}
    )
    again = train(
        with_classes(), tmp_path / "again", "softmax", config=first.path / "config.yaml", model=None
    )
    written = yaml.safe_load((again.path / "config.yaml").read_text())["settings"]["objective"]
    assert written["name"] == "softmax" and "output" not in written


def test_a_value_that_an_objectives_settings_refuse_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"objective: .*label_smoothing"):
        train(with_classes(), tmp_path, "softmax", settings={"objective.label_smoothing": 2.0})


class OddEncode(Distilled):
    """Forgets a view."""

    def couple(self, tensors: Mapping[str, Tensor]) -> Any:
        return super().couple(tensors).values


def test_what_couples_to_no_loss_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"OddEncode gives a Tensor: give Loss\(values, metrics"):
        train(without_labels(), tmp_path, OddEncode, settings=COMMON)
