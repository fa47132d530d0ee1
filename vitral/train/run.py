"""A training run from beginning to end: what the command line and `vitral.train` call."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from vitral.data.datasets.names import DEFAULT_NAME, data_name
from vitral.data.images import ImageData
from vitral.errors import RequestError, nearest
from vitral.models.model import Model
from vitral.spec.names import parse_model_name
from vitral.spec.run import OBJECTIVES
from vitral.spec.settings import parse_settings, read_settings_file
from vitral.train.execution import Execution
from vitral.train.metrics import MetricFunction, named_metrics
from vitral.train.objectives.function import ObjectiveFunction
from vitral.train.resolve import resolve_run
from vitral.train.result import Result
from vitral.train.site import Site, open_training_data, source_text, training_site


def train(
    model: str | nn.Module | None = None,
    data: Any = None,
    *,
    objective: str | ObjectiveFunction | None = None,
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
        objective: "softmax", "sigmoid", or a function (model, batch) -> loss or (loss, metrics).
            None: softmax, or sigmoid where images may have any classes.
        metrics: measured on the validation images beside the objective's own: names ("top5") or
            functions (model, batch) -> (N,) or a scalar mean, which a mapping may name.
        image_size: of the model's input.
        recipe: the name of one, or None for one that fits the task.
        epochs: length of the run, or
        steps: length of the run.
        batch_size: images a step, over all processes.
        learning_rate: the peak.
        seed: all random numbers follow from it.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto", "float32" or "bfloat16".
        compile: "auto", "on" or "off".
        output: the run folder; None: `runs/DATA-MODEL-` and six digits of the settings.
        resume: "auto" goes on where a run of the same settings stopped, "never" refuses to, a path
            names the run to go on with.
        config: a YAML file of settings.
        settings: further settings by path, such as {"augment.mixup": 0.2}.
        command: how a person would say this call; None: a call of this function.
        quiet: say nothing on standard error.

    Returns:
        The model, the summary and the run folder.

    Raises:
        VitralError: of the kinds that `vitral.errors` draws.
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
    asked = parse_settings({path: value for path, value in shortcuts.items() if value is not None})
    asked |= parse_settings(settings or {})
    from_file = _read_config_file(config)
    model, from_file = _choose_model(model, asked.pop("model.name", None), from_file)
    both = from_file | asked
    data = both.get("data.source", DEFAULT_NAME) if data is None else data
    objective = both.get("objective.name") if objective is None else objective
    # Unknown names are told before the data is opened.
    if isinstance(model, str):
        parse_model_name(model)
    if objective is not None:
        _objective_name(objective)
    asked |= {"data.source": source_text(data)}
    with training_site(both.get("train.device", "auto"), quiet=quiet) as site:
        channels = both.get("model.in_channels", both.get("preprocessing.channels"))
        if isinstance(model, Model):
            channels = model.config.in_channels
        images = open_training_data(data, site, settings=both, channels=channels)
        request = RunRequest(
            model,
            title=data_name(data),
            command=command or f"vitral.train({model!r}, {source_text(data)!r})",
            recipe=recipe,
            asked=asked,
            from_file=from_file,
            objective=objective,
            metrics=named_metrics(metrics),
            output=output,
            resume=resume,
        )
        return train_on(images, request, site)


@dataclass(frozen=True)
class RunRequest:
    """What is asked of a run on data that is open."""

    model: str | nn.Module | None
    title: str
    """A short name of the data."""
    command: str
    """How a person would say it."""
    recipe: str | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    """Settings by path; `data.source` among them."""
    from_file: Mapping[str, Any] = field(default_factory=dict)
    objective: str | ObjectiveFunction | None = None
    metrics: Mapping[str, MetricFunction] = field(default_factory=dict)
    output: str | Path | None = None
    resume: str = "auto"
    start: str = ""
    """What tells the starting weights apart, such as their hash; empty: those of a given module."""
    zero_head: bool = False
    """Whether the head is set to zero before the first step, where the best is kept after the model
    as it is given has been scored (ViT paper, 3.1)."""


def train_on(images: ImageData, request: RunRequest, site: Site) -> Result:
    """Carry out a run, or go on with it, on data that is open.

    Raises:
        VitralError: as `train`.
    """
    objective = request.objective
    if objective is None:
        objective = "sigmoid" if images.is_multi_label else "softmax"
    resolved = resolve_run(
        images,
        model=request.model,
        recipe=request.recipe,
        asked={**request.asked, "objective.name": _objective_name(objective)},
        from_file=request.from_file,
    )
    run = Execution(
        resolved,
        images,
        model=request.model,
        title=request.title,
        objective=objective,
        metrics=request.metrics,
        site=site,
        command=request.command,
        start=request.start,
        zero_head=request.zero_head,
    )
    return run.go(request.model, output=request.output, resume=request.resume)


def _choose_model(
    model: str | nn.Module | None, stated: str | None, from_file: Mapping[str, Any]
) -> tuple[str | nn.Module | None, dict[str, Any]]:
    """Return the model, and the file's settings without what speaks of another one.

    Raises:
        RequestError: two models are asked for.
    """
    if stated is not None and model is not None:
        raise RequestError(f"model.name={stated!r} has no effect beside another model: give one")
    left, in_file = dict(from_file), from_file.get("model.name")
    left.pop("model.name", None)
    model = stated if model is None else model
    if model is None:
        return in_file, left
    is_other = not isinstance(model, str) or (
        in_file is not None and parse_model_name(model)["name"] != in_file
    )
    if is_other:
        left = {path: value for path, value in left.items() if not path.startswith("model.")}
        if isinstance(model, str):
            left = {p: v for p, v in left.items() if not p.startswith("preprocessing.")}
    return model, left


def _read_config_file(path: str | Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"--config {path} can't be read: {error}") from None
    return read_settings_file(text, path=str(path))


def _objective_name(objective: str | Callable[..., Any]) -> str:
    if isinstance(objective, str):
        if objective not in OBJECTIVES:
            raise RequestError(
                f"there is no objective {objective!r}{nearest(objective, OBJECTIVES)}"
            )
        return objective
    return getattr(objective, "__name__", type(objective).__name__)
