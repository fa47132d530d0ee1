"""Interaction of recipes and given settings."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from support.runs import TINY_MODEL

import vitral
from vitral.errors import RequestError
from vitral.models.model import Model
from vitral.recipes import Facts
from vitral.recipes.transfer import finetune
from vitral.training.checkpoint import checkpoint_paths
from vitral.training.results import Result


def train_here(model: Any, data: Any, output: Path, **options: Any) -> Result:
    return vitral.train(
        model, str(data), output=output, steps=3, batch_size=16, quiet=True, **options
    )


def settings_of(result: Result) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load((result.path / "config.yaml").read_text())["settings"]
    return settings


@pytest.fixture(scope="module")
def loaded(patterns: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    run = tmp_path_factory.mktemp("loaded") / "run"
    return vitral.load_model(train_here("ViT-Mi/4", patterns, run, settings=TINY_MODEL).path)


@pytest.mark.parametrize("recipe", ["paper-finetune", "bit-hyperrule", "vtab"])
def test_a_recipe_keeps_its_optimizer(
    loaded: Model, patterns: Path, tmp_path: Path, recipe: str
) -> None:
    overrides = {"augment.crop": "none", "augment.mixup": 0.0}
    settings = settings_of(
        train_here(loaded, patterns, tmp_path / "run", recipe=recipe, settings=overrides)
    )
    assert settings["optimizer"]["name"] == "sgd"
    assert settings["optimizer"]["weight_decay"] == 0
    assert settings["optimizer"]["learning_rate"] == (0.003 if recipe == "bit-hyperrule" else 0.01)
    assert settings["preprocessing"]["resize"] == "squash"


def test_pretrained_weights_are_fine_tuned(loaded: Model, patterns: Path, tmp_path: Path) -> None:
    result = train_here(loaded, patterns, tmp_path / "run")
    assert result.summary["recipe"] == "finetune"
    settings = settings_of(result)
    assert settings["optimizer"]["layer_decay"] == pytest.approx(0.75 ** (2 / 12), abs=1e-4)
    assert settings["evaluation"]["best_within"] == 1
    assert "best_step" in result.summary


@pytest.mark.parametrize(
    ("depth", "decay"), [(1, 0.976), (4, 0.909), (12, 0.75), (24, 0.75), (None, 0.75)]
)
def test_few_layers_are_told_apart_less(depth: int | None, decay: float) -> None:
    if depth:
        config = vitral.create_model("ViT-Mi/4", embed_dim=16, mlp_dim=32, depth=depth).config
    else:
        config = vitral.create_model("R50x1", stages=(1,), width_factor=0.5).config
    facts = Facts(100, 2, (224, 224), model=config.name, embed_dim=0, config=config)
    assert finetune(facts)["optimizer.layer_decay"] == pytest.approx(decay, abs=1e-3)


def test_what_is_asked_of_the_best_drops_what_the_recipe_says_of_it(
    loaded: Model, patterns: Path, tmp_path: Path
) -> None:
    last = train_here(loaded, patterns, tmp_path / "last", settings={"evaluation.keep_best": False})
    evaluation = settings_of(last)["evaluation"]
    assert (evaluation["best_within"], evaluation["patience"]) == (0, 0)
    by_loss = train_here(
        loaded, patterns, tmp_path / "loss", settings={"evaluation.best_by": "loss"}
    )
    evaluation = settings_of(by_loss)["evaluation"]
    assert (evaluation["best_within"], evaluation["patience"]) == (0, 8)


def test_an_objective_that_gives_no_accuracy_is_judged_by_its_loss(
    loaded: Model, patterns: Path, tmp_path: Path
) -> None:
    def squared(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        marks = F.one_hot(batch["label"], 4).float()
        return (model(batch["image"]) - marks).square().mean(dim=1)

    model = copy.deepcopy(loaded)
    model.output = "sigmoid"  # of such an objective only the caller knows
    plain = train_here(model, patterns, tmp_path / "run", objective=squared)
    assert vitral.load_model(plain.path).output == "sigmoid"
    evaluation = settings_of(plain)["evaluation"]
    assert (evaluation["best_by"], evaluation["best_within"]) == ("loss", 0)
    with pytest.raises(RequestError, match="best_within=1 needs a share in 0..1 that is"):
        train_here(
            loaded, patterns, tmp_path / "asked", objective=squared,
            settings={"evaluation.best_within": 1.0},
        )  # fmt: skip


def test_without_validation_images_nothing_is_kept_as_best(loaded: Model, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    split = np.repeat(["train", "test"], [30, 10])
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(40) % 4, split=split,
             classes=np.array(list("abcd")))  # fmt: skip
    result = train_here(
        loaded, tmp_path / "a.npz", tmp_path / "run", settings={"data.validation_share": 0.0}
    )
    assert settings_of(result)["evaluation"]["keep_best"] is False


def test_another_optimizer_than_the_recipes_needs_its_own_rate(
    patterns: Path, tmp_path: Path
) -> None:
    settings = TINY_MODEL | {"optimizer.name": "sgd"}
    with pytest.raises(
        RequestError, match="optimizer.name='sgd' is not the recipe's: give its --le"
    ):
        train_here("ViT-Mi/4", patterns, tmp_path / "run", settings=settings)
    result = train_here(
        "ViT-Mi/4", patterns, tmp_path / "run", settings=settings, learning_rate=0.01
    )
    assert settings_of(result)["optimizer"]["weight_decay"] == 0


def test_layers_of_a_module_of_the_callers_own_are_not_known(
    patterns: Path, tmp_path: Path
) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    with pytest.raises(
        RequestError, match="layer_decay has no effect on a model of your own, whose"
    ):
        train_here(
            network,
            patterns,
            tmp_path / "run",
            image_size=8,
            settings={"optimizer.layer_decay": 0.5},
        )


def test_a_long_run_on_few_images_writes_at_most_a_hundred_checkpoints(
    patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 250 steps, of which five are an epoch, every third at most."""
    from vitral.training import trainer

    steps = []
    saving = trainer.save_checkpoint

    def save(*arguments: Any, **options: Any) -> Path:
        steps.append(options["progress"]["step"])
        return saving(*arguments, **options)

    monkeypatch.setattr(trainer, "save_checkpoint", save)
    monkeypatch.setattr(trainer, "MOST_CHECKPOINTS", 3)
    result = vitral.train(
        "ViT-Mi/4", str(patterns), output=tmp_path / "run", steps=20, batch_size=16,
        settings=TINY_MODEL, quiet=True,
    )  # fmt: skip
    assert steps == [7, 14, 20]
    assert len(checkpoint_paths(result.path / "checkpoints")) == 2
