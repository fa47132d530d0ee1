"""The pretrained model that fine-tuning starts from, and the rows of its results."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from vitral.errors import RequestError
from vitral.files.layout import RunFile
from vitral.files.results import ResultRow, keep_results, read_results, utc_now
from vitral.models.model import Model, zero_head
from vitral.models.weights.load import change_model, load_model
from vitral.models.weights.provenance import training_data_of, weights_hash


@dataclass(frozen=True)
class PretrainedModel:
    """A pretrained model, with its source."""

    model: Model
    path: str
    """A run folder, a model folder or file, or a name; for a loaded model its name."""
    weights: str
    """Hash of the weights, 32 hex digits."""

    @property
    def pretraining(self) -> str:
        """The data that the weights were trained on, if known."""
        return training_data_of(self.model, self.path)


def open_source(
    model: str | Path | Model, *, format: str | None = None, in_channels: int | None = None
) -> PretrainedModel:
    """Load the model to fine-tune.

    Raises:
        RequestError: nothing is there.
        ModelFileError: it can't be used.
    """
    if isinstance(model, nn.Module) and not isinstance(model, Model):
        raise RequestError(
            f"{type(model).__name__} is a model of your own, whose head is not known: give it a "
            "new head and train it with vitral.train"
        )
    channels: dict[str, Any] = {} if in_channels is None else {"in_channels": in_channels}
    if isinstance(model, Model):
        loaded, path = (change_model(model, **channels) if channels else model), model.config.name
    else:
        loaded, path = load_model(model, format=format, **channels), str(model)
    return PretrainedModel(loaded, path, weights_hash(loaded))


def starting_model(
    source: PretrainedModel,
    classes: tuple[str, ...],
    *,
    image_size: int | tuple[int, int] | None = None,
    **fields: Any,
) -> Model:
    """Return a copy with a zero head for other classes, and without `pre_logits`.

    Args:
        source: not changed.
        classes: of the new task, in order.
        image_size: position tables are interpolated to it; None: the model's own.
        fields: of the config to override, such as `dropout`.

    Source: ViT paper, sections 3.1 and 3.2.
    """
    changes = dict(fields)
    if source.model.config.representation_size:
        changes["representation_size"] = 0
    if image_size is not None:
        changes["image_size"] = image_size
    changed = change_model(source.model, num_classes=len(classes), **changes)
    model = copy.deepcopy(changed)  # it shares tensors of equal shape with the source
    zero_head(model.head)
    model.classes = classes
    model.provenance = {
        "licence": source.model.provenance.get("licence"),
        "pretrained": {
            "model": source.model.config.name,
            "path": source.path,
            "weights": source.weights,
            "data": source.pretraining or None,
        },
    }
    return model


def set_head(model: Model, weights: torch.Tensor, bias: torch.Tensor) -> None:
    """Set the head of a model: weights (D, K) and bias (K,)."""
    assert isinstance(model.head, nn.Linear)
    with torch.no_grad():
        model.head.weight.copy_(weights.T)
        model.head.bias.copy_(bias)


def run_row(
    source: PretrainedModel,
    run: Path,
    summary: Mapping[str, Any],
    *,
    protocol: str,
    additional: Mapping[str, Any] | None = None,
) -> ResultRow | None:
    """Return the row of a finished run's score; None if nothing was scored.

    Args:
        source: the model that it started from.
        run: its folder.
        summary: of the run.
        protocol: its name.
        additional: settings of the protocol in addition to those of the run.
    """
    metric = summary.get("metric", "accuracy")  # older runs had no other
    if summary[metric] is None:
        return None
    config = yaml.safe_load((run / RunFile.CONFIG).read_text(encoding="utf-8"))
    settings = config["settings"]
    facts = {"recipe": summary["recipe"], "data_fingerprint": config["data_fingerprint"]}
    controls = {
        "majority": summary.get("majority_accuracy"),
        "pixels": summary.get("pixel_accuracy"),
    }
    interval = summary.get(f"{metric}_interval")
    return ResultRow(
        model=source.model.config.name,
        weights=source.weights,
        data=summary["data"],
        split=summary["split"],
        protocol=protocol,
        settings={**facts, **(additional or {}), **settings},
        metric=metric,
        value=summary[metric],
        num_examples=summary["num_examples"],
        interval=tuple(interval) if interval else None,
        interval_over="images" if interval else None,
        controls={name: value for name, value in controls.items() if value is not None},
        seed=settings["train"]["seed"],
        precision=summary["precision"],
        path=str(run),
        pretraining=source.pretraining,
    )


def mean_row(
    rows: Sequence[ResultRow], path: Path, mean: tuple[float, float | None, float | None]
) -> ResultRow:
    """Return the row of a mean over seeds, with its interval over seeds."""
    value, low, high = mean
    settings = {**rows[0].settings}
    settings["train"] = {name: item for name, item in settings["train"].items() if name != "seed"}
    has_interval = low is not None and high is not None
    return dataclasses.replace(
        rows[0],
        settings=settings,
        value=value,
        interval=(max(0.0, low), min(1.0, high)) if low is not None and high is not None else None,
        interval_over="seeds" if has_interval else None,
        seed=tuple(row.seed for row in rows if isinstance(row.seed, int)),
        path=str(path),
        time=utc_now(),
    )


def append_new(results: Path, rows: Sequence[ResultRow]) -> None:
    """Append the rows that the file does not have yet: a command may be repeated."""
    known = {_identity(row) for row in read_results(results)[0]}
    keep_results(results, [row for row in rows if _identity(row) not in known])


def _identity(row: ResultRow) -> tuple[Any, ...]:
    return (row.path, row.weights, row.protocol, row.data, row.split, str(row.seed), row.value)
