"""Resolve options, settings files, recipes and data into one frozen config with origins."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from vitral.config.checks import check_positive
from vitral.config.model import ModelConfig, family_of
from vitral.config.names import parse_model_name
from vitral.config.preprocessing import default_preprocessing
from vitral.config.run import (
    CROP_OF_SETTING,
    AugmentSettings,
    ObjectiveSettings,
    OptimizerSettings,
    RunConfig,
)
from vitral.config.settings import (
    Settings,
    build_run_config,
    build_section,
    flatten,
    parse_objective_settings,
)
from vitral.data.dataset import ImageDataset
from vitral.data.loader import main_share
from vitral.data.order import steps_per_epoch
from vitral.errors import DataError, RequestError
from vitral.models.model import Model
from vitral.recipes import Facts
from vitral.recipes.recipe import Recipe, choose_recipe, default_model
from vitral.training.objectives.table import ObjectiveChoice

# Recipe settings without effect if there are no validation images.
_OF_VALIDATION = tuple(
    f"evaluation.{name}"
    for name in ("keep_best", "best_by", "best_within", "patience", "every_epochs")
)
# Recipe settings without effect if the last model is the result.
_OF_THE_BEST = ("evaluation.best_by", "evaluation.best_within", "evaluation.patience")


@dataclass(frozen=True)
class _Task:
    """What an objective requires for the data."""

    num_outputs: int
    """Of the model's head."""
    sources: Mapping[str, float]
    """Data sources besides the run's own, with their shares of a batch."""


@dataclass(frozen=True)
class ResolvedRun:
    """The settings of a run, resolved."""

    config: RunConfig
    origin: dict[str, str]
    """Where each setting came from: "option", "file", "recipe", "automatic" or "default"."""
    recipe: Recipe


def resolve_run(
    data: ImageDataset,
    *,
    model: str | nn.Module | None,
    objective: ObjectiveChoice,
    recipe: str | None,
    settings: Settings,
) -> ResolvedRun:
    """Choose every setting.

    Args:
        data: of the run.
        model: a name, the caller's own module, or None for one that fits the images.
        objective: to minimise.
        recipe: a name, or None for one that fits the task.
        settings: those that were given; `train.epochs` stands for `train.steps`.

    Raises:
        RequestError: a setting has no effect here, or a bad value.
        DataError: no training images.
    """
    if "train" not in data.splits:
        raise DataError(
            f"{data.source} has no training images: it has {', '.join(data.splits)} only"
        )
    kind, record = objective.kind, objective.kind.settings_type
    given = settings | Settings.of({"objective.name": objective.name}, "option")
    given = parse_objective_settings(given, record, name=objective.name)
    objective_settings = build_section(record, "objective", given)
    kind.check_data(data, objective_settings)
    task = _Task(
        num_outputs=kind.num_outputs(data, objective_settings),
        sources=kind.extra_sources(objective_settings),
    )
    if given.get("evaluation.keep_best") and "validation" not in data.splits:
        raise RequestError(
            f"evaluation.keep_best=true: {data.source} has no validation images to score on: set "
            "data.validation_share, or leave it out"
        )
    _check_mixing(given, objective)
    model_settings, preprocessing = _model_settings(data, model, task.num_outputs, given=given)
    facts = _facts(data, model_settings, preprocessing, model=model)
    chosen = choose_recipe(facts, name=recipe)
    fitting = kind.fit_recipe({**chosen.settings, **_fitting(data)}, given, data)
    fitting = _for_objective(fitting, record)
    if "validation" not in data.splits:
        useless = set(_OF_VALIDATION)
        if given.get("evaluation.fewshot"):
            useless.remove("evaluation.every_epochs")
        fitting = {path: value for path, value in fitting.items() if path not in useless}
    chosen = replace(chosen, settings=fitting)
    check_positive(epochs=given.get("train.epochs"))
    if isinstance(model, nn.Module):
        _check_own_model(model, given, num_outputs=task.num_outputs)
    effective = _with_effect(chosen.settings, given, model=model)
    chosen = replace(chosen, settings=_for_family(effective, model_settings))
    automatic = Settings.of(model_settings | preprocessing, "automatic")
    everything = automatic | Settings.of(chosen.settings, "recipe") | given
    everything = _to_steps(everything, data, sources=task.sources)
    config = build_run_config(everything, objective=record)
    origin = {path: everything.origins.get(path, "default") for path in flatten(config)}
    return ResolvedRun(config, origin, chosen)


def _fitting(data: ImageDataset) -> dict[str, Any]:
    """Return settings that disable augmentations which would change the class of an image."""
    off: dict[str, dict[str, Any]] = {
        "flip": {"augment.flip": False},
        "crop": {"augment.crop": "none"},
    }
    return {
        path: value
        for change in data.listing.disabled_augmentations
        for path, value in off[change].items()
    }


def _for_objective(recipe: Mapping[str, Any], record: type[ObjectiveSettings]) -> dict[str, Any]:
    """Drop recipe settings that belong to another objective."""
    known = {f"objective.{name}" for name in record.__dataclass_fields__}
    return {
        path: value
        for path, value in recipe.items()
        if not path.startswith("objective.") or path in known
    }


def _check_mixing(given: Mapping[str, Any], objective: ObjectiveChoice) -> None:
    for path in ("augment.mixup", "augment.cutmix"):
        if given.get(path) and not objective.kind.mixing:
            raise RequestError(
                f"{path}={given[path]} mixes images with their classes, which the objective "
                f"{objective.name!r} does not read so: leave it out"
            )
    if given.get("augment.randaugment") and "mask" in objective.kind.targets:
        raise RequestError(
            f"augment.randaugment={given['augment.randaugment']} moves pixels, which the masks of "
            f"the objective {objective.name!r} would not follow: leave it out"
        )


def _check_own_model(model: nn.Module, given: Mapping[str, Any], *, num_outputs: int) -> None:
    wrong = sorted(path for path in given if path.startswith("model."))
    if wrong:
        raise RequestError(f"{wrong[0]} has no effect on a model of your own: leave it out")
    if not isinstance(model, Model) and given.get("optimizer.layer_decay", 1.0) != 1:
        raise RequestError(
            "optimizer.layer_decay has no effect on a model of your own, whose layers are not "
            "known: leave it out"
        )
    if isinstance(model, Model) and model.config.num_classes != num_outputs:
        raise RequestError(
            f"a model of {model.config.num_classes} classes for data of {num_outputs}: build or "
            f"load it with num_classes={num_outputs}"
        )


def _with_effect(
    recipe: Mapping[str, Any], given: Mapping[str, Any], *, model: str | nn.Module | None
) -> dict[str, Any]:
    """Drop recipe settings that have no effect in combination with the given settings."""
    rest = dict(recipe)
    crop = given.get("augment.crop", recipe.get("augment.crop", AugmentSettings.crop))
    for path, needed in CROP_OF_SETTING.items():
        if crop != needed:
            rest.pop(path, None)
    if given.get("evaluation.keep_best") is False:
        rest = {path: value for path, value in rest.items() if path not in _OF_THE_BEST}
    if given.get("evaluation.best_by") == "loss":
        rest.pop("evaluation.best_within", None)
    recipes = recipe.get("optimizer.name", OptimizerSettings.name)
    if given.get("optimizer.name", recipes) != recipes:
        rest = _for_any_optimizer(rest, given)
    if isinstance(model, nn.Module):
        rest = {path: value for path, value in rest.items() if not path.startswith("model.")}
    return rest


def _for_any_optimizer(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Drop recipe settings of another optimizer than the given one.

    Raises:
        RequestError: no learning rate is given, and that of the recipe is for another optimizer.
    """
    if "optimizer.learning_rate" not in given:
        raise RequestError(
            f"optimizer.name={given['optimizer.name']!r} is not the recipe's: give its "
            "--learning-rate too"
        )
    rest = {path: value for path, value in recipe.items() if not path.startswith("optimizer.")}
    return rest | {"optimizer.weight_decay": 0.0}


def _for_family(recipe: Mapping[str, Any], model_settings: Mapping[str, Any]) -> dict[str, Any]:
    """Drop recipe settings for models of another family, such as a ResNet's dropout."""
    if not model_settings:
        return dict(recipe)
    family = family_of(path.removeprefix("model.") for path in model_settings)
    return {
        path: value
        for path, value in recipe.items()
        if not path.startswith("model.")
        or path.removeprefix("model.") in family.__dataclass_fields__
    }


def _model_settings(
    data: ImageDataset,
    model: str | nn.Module | None,
    num_outputs: int,
    *,
    given: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the automatic settings of the model and of its preprocessing."""
    channels = data.channels
    if isinstance(model, Model):
        return (
            {f"model.{k}": v for k, v in vars(model.config).items()},
            {f"preprocessing.{k}": v for k, v in vars(model.preprocessing).items()},
        )
    name, image_size = default_model(_typical_side(data))
    fields: dict[str, Any] = {}
    if model is None or isinstance(model, str):
        fields = parse_model_name(model or name)
        fields.setdefault("image_size", image_size)
        fields |= {"in_channels": channels, "num_classes": num_outputs}
        image_size = given.get("model.image_size", fields["image_size"])
        stated = given.get("model.num_classes", num_outputs)
        if stated != num_outputs:
            raise RequestError(
                f"model.num_classes={stated} does not fit data of {num_outputs} classes: "
                "leave it out"
            )
    size = given.get("preprocessing.size", image_size)
    size = (size, size) if isinstance(size, int) else tuple(size)
    ready = default_preprocessing(size, channels=channels, **_of_deep_images(data))
    return (
        {f"model.{k}": v for k, v in fields.items()},
        {f"preprocessing.{k}": v for k, v in vars(ready).items()},
    )


def _of_deep_images(data: ImageDataset) -> dict[str, Any]:
    """Return preprocessing of images of more than eight bits: in their range, not rounded."""
    levels = data.levels()
    return {"levels": levels, "rounding": "none"} if levels else {}


def facts_of(data: ImageDataset, config: ModelConfig) -> Facts:
    """Return the facts that recipes and protocols depend on, for a pretrained model."""
    return Facts(
        num_images=len(data.splits["train"]),
        num_classes=len(data.classes),
        image_size=config.image_hw,
        model=config.name,
        embed_dim=getattr(config, "embed_dim", 0),
        data=data.source,
        image_area=typical_area(data),
        config=config,
    )


def _facts(
    data: ImageDataset,
    model_settings: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    *,
    model: str | nn.Module | None,
) -> Facts:
    if isinstance(model, Model) and model.load_report:
        return facts_of(data, model.config)
    return Facts(
        num_images=len(data.splits["train"]),
        num_classes=len(data.classes),
        image_size=preprocessing["preprocessing.size"],
        model=model_settings.get("model.name", "your own model"),
        embed_dim=model_settings.get("model.embed_dim", 0),
        data=data.source,
        image_area=typical_area(data),
    )


def _to_steps(settings: Settings, data: ImageDataset, *, sources: Mapping[str, float]) -> Settings:
    """Replace epochs and the warm-up share by steps, now that the number of images is known."""
    check_positive(batch_size=settings["train.batch_size"])
    batch_size = main_share(settings["train.batch_size"], sources)
    per_epoch = steps_per_epoch(len(data.splits["train"]), batch_size)
    values, origins = dict(settings), dict(settings.origins)
    if "train.epochs" in values:
        values["train.steps"] = max(1, round(values.pop("train.epochs") * per_epoch))
        origins["train.steps"] = origins.pop("train.epochs")
    share = values.pop("schedule.warmup_share", None)
    share_origin = origins.pop("schedule.warmup_share", "default")
    if share is not None and "schedule.warmup_steps" not in values:
        values["schedule.warmup_steps"] = int(share * values["train.steps"])
        origins["schedule.warmup_steps"] = share_origin
    return Settings(values, origins)


def typical_area(data: ImageDataset) -> int:
    """Return the median number of pixels of the images; 224 x 224 if sizes are not known."""
    areas = [f.height * f.width for f in data.file_infos if f.height]
    return int(np.median(areas)) if areas else 224 * 224


def _typical_side(data: ImageDataset) -> int:
    """Return the median shorter side of the images; 224 if sizes are not known."""
    sides = [min(f.height, f.width) for f in data.file_infos if f.height]
    return int(np.median(sides)) if sides else 224
