"""A pretrained model as the beginning of fine-tuning."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitral.errors import RequestError
from vitral.models.fingerprint import weights_hash
from vitral.models.model import Model, zero_head
from vitral.models.weights.load import change_model, load_model
from vitral.models.weights.origin import training_data_of


@dataclass(frozen=True)
class Source:
    """Pretrained weights, as they were given."""

    model: Model
    path: str
    """A run folder, a model folder or file, a name; of a given model its name."""
    weights: str
    """Their hash, 32 hex digits."""

    @property
    def pretraining(self) -> str:
        """What they were trained on, as far as known."""
        return training_data_of(self.model, self.path)


def open_source(
    model: str | Path | Model, *, format: str | None = None, in_channels: int | None = None
) -> Source:
    """Load what shall be fine-tuned.

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
    return Source(loaded, path, weights_hash(loaded))


def starting_model(
    source: Source,
    classes: tuple[str, ...],
    *,
    image_size: int | tuple[int, int] | None = None,
    **fields: Any,
) -> Model:
    """Return a copy with a head of zeros for other classes, and without `pre_logits`.

    Args:
        source: stays as it is.
        classes: of the new task, in order.
        image_size: position tables are interpolated to it; None: the model's own.
        fields: of the config that shall differ, such as `dropout`.

    Source: ViT paper, sections 3.1 and 3.2.
    """
    changes = dict(fields)
    if source.model.config.representation_size:
        changes["representation_size"] = 0
    if image_size is not None:
        changes["image_size"] = image_size
    changed = change_model(source.model, num_classes=len(classes), **changes)
    model = copy.deepcopy(changed)  # whose tensors are the source's where they fit
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
    """Give a model a head: weights (D, K) and bias (K,) of its features."""
    assert isinstance(model.head, nn.Linear)
    with torch.no_grad():
        model.head.weight.copy_(weights.T)
        model.head.bias.copy_(bias)
