"""Scores of frozen features as rows of results."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitral.evaluate.frozen import FrozenModel, FrozenTask
from vitral.files.results import ResultRow
from vitral.models.fingerprint import weights_hash
from vitral.models.weights.origin import training_data_of
from vitral.spec.preprocessing import Preprocessing


@dataclass(frozen=True)
class FrozenResult:
    """What a protocol found."""

    rows: tuple[ResultRow, ...]
    num_skipped: int
    """Images of the scored split that could not be read."""
    notes: tuple[str, ...]
    """What should be known of it; a warning begins with that word."""
    loss: float | None = None
    """Mean cross-entropy in nats, where the protocol gives probabilities."""


@dataclass(frozen=True)
class RowMaker:
    """What all rows of one protocol on one task share."""

    shared: Mapping[str, Any]
    settings: Mapping[str, Any]

    def row(self, value: float, *, settings: Mapping[str, Any], **fields: Any) -> ResultRow:
        """Return a row of an accuracy; `settings` are those that the rows differ in."""
        own = {**self.settings, **settings}
        return ResultRow(**self.shared, metric="accuracy", value=value, settings=own, **fields)


def row_maker(
    frozen: FrozenModel,
    task: FrozenTask,
    *,
    protocol: str,
    preprocessing: Preprocessing,
    settings: Mapping[str, Any],
) -> RowMaker:
    """Hash the weights once, and gather what the rows say of model, task and protocol."""
    model = frozen.model
    shared = {
        "model": model.config.name,
        "weights": weights_hash(model),
        "data": task.name,
        "split": task.split,
        "protocol": protocol,
        "precision": str(frozen.precision).removeprefix("torch."),
        "path": frozen.path,
        "pretraining": training_data_of(model, frozen.path),
    }
    return RowMaker(
        shared,
        {
            **settings,
            "num_classes": len(task.classes),
            "preprocessing": dataclasses.asdict(preprocessing),
        },
    )
