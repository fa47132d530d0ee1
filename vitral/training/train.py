"""The entry point of training for the command line and `vitral.train`."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from vitral.config.names import parse_model_name
from vitral.config.run import RunConfig
from vitral.config.settings import (
    Settings,
    flatten,
    parse_objective_settings,
    parse_settings,
    read_settings_file,
    settings_digest,
)
from vitral.data.dataset import ImageDataset
from vitral.data.datasets.names import DEFAULT_NAME, data_name
from vitral.data.splits import describe_splits
from vitral.errors import RequestError
from vitral.models.model import Model
from vitral.runtime.device import choose_compile, choose_precision
from vitral.runtime.distributed import Machine
from vitral.training.building import Run
from vitral.training.checkpoint import checkpoint_paths
from vitral.training.context import TrainContext, open_training_data, source_text, train_context
from vitral.training.fingerprint import parts_fingerprint
from vitral.training.objectives.base import Objective
from vitral.training.objectives.table import ObjectiveChoice, ObjectiveFunction, choose_objective
from vitral.training.resolve import ResolvedRun, resolve_run
from vitral.training.results import Result
from vitral.training.run_folder import RunFolder
from vitral.training.trainer import Trainer
from vitral.training.validation import MetricFunction, named_metrics

UNLABELLED = "unlabelled"
"""Name of the only additional data source that a run can have."""


def train(
    model: str | nn.Module | None = None,
    data: Any = None,
    *,
    objective: str | type[Objective] | ObjectiveFunction | None = None,
    unlabelled: Any = None,
    metrics: Mapping[str, MetricFunction] | Sequence[str | MetricFunction] = (),
    image_size: int | tuple[int, int] | None = None,
    recipe: str | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    compile: str | None = None,
    output: str | Path | None = None,
    resume: str = "auto",
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    command: str | None = None,
    quiet: bool = False,
) -> Result:
    """Train a classifier and write a run folder.

    Args:
        model: a name such as "ViT-S/16", any module (N, C, H, W) -> (N, K), or None for a ViT that
            fits the images.
        data: a path, the name of a built-in set, a sized object with [i] -> (image, label), or None
            for the built-in set.
        objective: "softmax", "sigmoid", a subclass of `Objective`, or a function (model, batch) ->
            loss or (loss, metrics). None: softmax, or sigmoid where images may have any classes.
        unlabelled: additional data without classes, for an objective that also learns from it.
        metrics: measured on the validation images besides the objective's own: names ("top5") or
            functions (model, batch) -> (N,) or a scalar mean, which a mapping may name.
        image_size: of the model's input.
        recipe: a name, or None for one that fits the task.
        epochs: length of the run, or
        steps: length of the run.
        batch_size: images a step, over all processes.
        learning_rate: the peak of the schedule.
        seed: of all random numbers.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto", "float32" or "bfloat16".
        compile: "auto", "on" or "off".
        output: the run folder; None: `runs/DATA-MODEL-` and six digits of the settings.
        resume: "auto" continues a stopped run of the same settings, "never" refuses to, a path
            names the run to continue.
        config: a YAML file of settings.
        settings: additional settings by path, such as {"augment.mixup": 0.2}.
        command: the equivalent command line; None: a call of this function.
        quiet: print nothing on standard error.

    Returns:
        The model, the summary and the run folder.

    Raises:
        VitralError: of the kinds defined in `vitral.errors`.
    """
    if isinstance(model, nn.Module) and isinstance(image_size, int):
        image_size = (image_size, image_size)
    shortcuts = {
        "preprocessing.size" if isinstance(model, nn.Module) else "model.image_size": image_size,
        "train.epochs": epochs,
        "train.steps": steps,
        "train.batch_size": batch_size,
        "optimizer.learning_rate": learning_rate,
        "train.seed": seed,
        "train.device": device,
        "train.precision": precision,
        "train.compile": compile,
    }
    options = parse_settings({p: value for p, value in shortcuts.items() if value is not None})
    options = Settings.of({**options, **parse_settings(settings or {})}, "option")
    file = _read_config_file(config)
    model, file = _choose_model(model, options.get("model.name"), file)
    given = file.without("model.name") | options.without("model.name")
    data = given.get("data.source", DEFAULT_NAME) if data is None else data
    objective = given.get("objective.name") if objective is None else objective
    # Report unknown names before the data is opened.
    if isinstance(model, str):
        parse_model_name(model)
    choice = None if objective is None else choose_objective(objective)
    if choice is not None:
        if file.get("objective.name", choice.name) != choice.name:
            given = given.without("objective.", origin="file")
        parse_objective_settings(given, choice.kind.settings_type, name=choice.name)
    if unlabelled is None:
        unlabelled = given.get("data.unlabelled")
    else:
        given |= Settings.of({"data.unlabelled": source_text(unlabelled)}, "option")
    given |= Settings.of({"data.source": source_text(data)}, "option")
    with train_context(given.get("train.device", "auto"), quiet=quiet) as context:
        channels = given.get("model.in_channels", given.get("preprocessing.channels"))
        if isinstance(model, Model):
            channels = model.config.in_channels
        images = open_training_data(
            data,
            context,
            settings=given,
            channels=channels,
            label=choice is None or choice.kind.label,
            targets=() if choice is None else choice.kind.targets,
        )
        request = RunRequest(
            model,
            title=data_name(data),
            command=command or f"vitral.train({model!r}, {source_text(data)!r})",
            recipe=recipe,
            settings=given,
            objective=choice,
            unlabelled=unlabelled,
            metrics=named_metrics(metrics),
            output=output,
            resume=resume,
        )
        return train_on(images, request, context)


@dataclass(frozen=True)
class RunRequest:
    """The request for a run on open data."""

    model: str | nn.Module | None
    title: str
    """A short name of the data."""
    command: str
    """The equivalent command line or call."""
    recipe: str | None = None
    settings: Settings = field(default_factory=Settings)
    """Those that were given; `data.source` among them."""
    objective: ObjectiveChoice | None = None
    """None: softmax, or sigmoid where images may have any classes."""
    unlabelled: Any = None
    """Additional data without classes, for an objective that also learns from it."""
    metrics: Mapping[str, MetricFunction] = field(default_factory=dict)
    output: str | Path | None = None
    resume: str = "auto"
    start: str = ""
    """Identifies the initial weights, such as a hash; empty: those of a given module."""
    zero_head: bool = False
    """Whether the head is set to zero before the first step (ViT paper, 3.1). If the best model is
    kept, the model is first scored as given."""


def train_on(images: ImageDataset, request: RunRequest, context: TrainContext) -> Result:
    """Start or resume a run on open data.

    Raises:
        VitralError: as for `train`.
    """
    default = "sigmoid" if images.is_multi_label else "softmax"
    objective = request.objective or choose_objective(default)
    resolved = resolve_run(
        images,
        model=request.model,
        objective=objective,
        recipe=request.recipe,
        settings=request.settings,
    )
    config, model = resolved.config, request.model
    extra = _open_extra(objective, images, request, context, resolved)
    fingerprint = _fingerprint(images, extra)
    parts = request.start + parts_fingerprint(
        None if request.start else model, objective.given or objective.name, request.metrics
    )
    digits = settings_digest(flatten(config), given=fingerprint + parts)
    run = Run(
        resolved=resolved,
        data=images,
        extra=extra,
        title=request.title,
        model=model,
        objective=objective,
        metrics=request.metrics,
        machine=_choose_machine(config, context),
        view=context.view,
        folder=RunFolder(_output_path(request, config, digits=digits)),
        command=request.command,
        fingerprint=fingerprint,
        parts=parts,
        zero_head=request.zero_head,
        provenance=_provenance(images, request, config, fingerprint=fingerprint),
    )
    return Trainer(run).run(resume=request.resume)


def _choose_machine(config: RunConfig, context: TrainContext) -> Machine:
    width = config.model.feature_dim if config.model else 0
    return Machine(
        device=context.device,
        precision=choose_precision(config.train.precision, device=context.device, width=width),
        compile=choose_compile(
            config.train.compile, device=context.device, steps=config.train.steps
        ),
        ranks=context.ranks,
    )


def _open_extra(
    objective: ObjectiveChoice,
    images: ImageDataset,
    request: RunRequest,
    context: TrainContext,
    resolved: ResolvedRun,
) -> dict[str, ImageDataset]:
    """Open the data sources that an objective learns from besides the run's own data.

    Raises:
        RequestError: one is missing, or one is given that the objective does not use.
    """
    config, given = resolved.config, request.unlabelled
    names = objective.kind.extra_sources(config.objective)
    if given is not None and given != "" and UNLABELLED not in names:
        raise RequestError(
            f"unlabelled data has no effect on the objective {objective.name!r}: leave it out"
        )
    for name in names:
        if name != UNLABELLED or given is None or given == "":
            raise RequestError(
                f"the objective {objective.name!r} learns from {name} examples too: give them as "
                f"{UNLABELLED} (data.{UNLABELLED})"
            )
    if names and images.is_multi_label:
        raise RequestError(
            f"the objective {objective.name!r} has further examples beside images of several "
            "classes each, which are not joined yet: give data of one class an image"
        )
    settings = {"data.validation_share": 0.0, "data.directory": config.data.directory}
    channels = config.preprocessing.channels
    return {
        name: open_training_data(given, context, settings=settings, channels=channels, label=False)
        for name in names
    }


def _fingerprint(images: ImageDataset, extra: Mapping[str, ImageDataset]) -> str:
    """Return a fingerprint of all data of a run."""
    if not extra:
        return images.fingerprint()
    prints = [images.fingerprint(), *(f"{name} {d.fingerprint()}" for name, d in extra.items())]
    return hashlib.sha256("\n".join(prints).encode()).hexdigest()[:32]


def _provenance(
    images: ImageDataset, request: RunRequest, config: RunConfig, *, fingerprint: str
) -> dict[str, Any]:
    """Return the origin of a model, stored in its folder."""
    provenance: dict[str, Any] = {
        "data": {
            "source": images.source,
            "name": request.title,
            "fingerprint": fingerprint,
            "split": describe_splits(images.listing, config.data),
        },
        "command": request.command,
    }
    if isinstance(request.model, Model):  # inherited from the initial weights
        names = ("licence", "pretrained")
        provenance |= {name: request.model.provenance.get(name) for name in names}
    return provenance


def _output_path(request: RunRequest, config: RunConfig, *, digits: str) -> Path:
    resume, output = request.resume, request.output
    if resume not in ("auto", "never"):
        path = _run_folder_of(Path(resume))
        if output is not None and Path(output).resolve() != path.resolve():
            raise RequestError(
                f"resume={resume!r} goes on in {path}, output={str(output)!r} says otherwise: "
                "give one of them"
            )
        return path
    if output is not None:
        return Path(output)
    name = config.model.name if config.model else type(request.model).__name__
    plain = name.lower().replace("/", "")
    return Path("runs") / f"{request.title}-{plain}-{digits}"


def _run_folder_of(path: Path) -> Path:
    """Return the run folder of a path: the path itself, or the run whose newest checkpoint it is.

    Raises:
        RequestError: the path is neither.
    """
    if RunFolder(path).holds_run():
        return path
    run = RunFolder(path.parent.parent)
    if path.is_dir() and path.parent == run.checkpoints and run.holds_run():
        newest = checkpoint_paths(run.checkpoints)[0]
        if path != newest:
            raise RequestError(
                f"a run goes on from its newest checkpoint, {newest.name}, not from {path.name}: "
                f"give {run.path}, or remove the newer ones"
            )
        return run.path
    raise RequestError(f"resume={str(path)!r} is no run folder: give one, or auto or never")


def _choose_model(
    model: str | nn.Module | None, stated: str | None, file: Settings
) -> tuple[str | nn.Module | None, Settings]:
    """Return the model, and the file's settings without those for another model.

    Raises:
        RequestError: two models are requested.
    """
    if stated is not None and model is not None:
        raise RequestError(f"model.name={stated!r} has no effect beside another model: give one")
    in_file = file.get("model.name")
    model = stated if model is None else model
    if model is None:
        return in_file, file
    if not isinstance(model, str):
        return model, file.without("model.")
    if in_file is not None and parse_model_name(model)["name"] != in_file:
        return model, file.without("model.", "preprocessing.")
    return model, file


def _read_config_file(path: str | Path | None) -> Settings:
    if path is None:
        return Settings()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"--config {path} can't be read: {error}") from None
    return read_settings_file(text, path=str(path))
