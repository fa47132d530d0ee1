"""What changes while training: saved as one flat table of tensors beside plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitral.runtime.sharding import all_sharded_like, whole
from vitral.train.average import WeightAverage
from vitral.train.best import BestModel
from vitral.train.objectives.base import Objective
from vitral.train.optimizer import load_optimizer_tensors, optimizer_tensors

PARTS = ("objective", "average", "best", "optimizer")
"""What the names of the flat table begin with, before a slash."""


@dataclass
class TrainState:
    """What changes while training, and is saved."""

    objective: Objective
    """Owns the model as `.model`, and all else that learns."""
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    best: BestModel | None = None
    """On the validation images; None: the last one is kept."""
    step: int = 0
    """Optimizer steps done."""

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name: `objective/model.head.weight`, `optimizer/exp_avg/model...`.

        They are the present ones, not copies.
        """
        parts: dict[str, Mapping[str, Tensor]] = {
            "objective": self.objective.state_dict(),
            "average": self.average.tensors if self.average else {},
            "best": self.best.tensors if self.best else {},
            "optimizer": optimizer_tensors(self.optimizer),
        }
        return {f"{part}/{name}": tensor for part in PARTS for name, tensor in parts[part].items()}

    def progress(self) -> dict[str, Any]:
        """Return what is no tensor, as plain data."""
        return {"step": self.step, "best": self.best.progress() if self.best else None}

    def load(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Put back in place what `tensors`, gathered, and `progress` gave."""
        objective = part_of(tensors, "objective")
        self.objective.load_state_dict(all_sharded_like(objective, self.objective.state_dict()))
        load_optimizer_tensors(self.optimizer, part_of(tensors, "optimizer"))
        if self.average:
            self.average.load(part_of(tensors, "average"))
        if self.best and progress["best"]:
            self.best.load(part_of(tensors, "best"), progress["best"])
        self.step = progress["step"]


def part_of(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return one part of the flat table, by the names within it."""
    start = f"{part}/"
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as every process has them whole; all processes call this together.

    What is sharded over processes is put together; all else stays as it is.
    """
    return {name: whole(tensor) for name, tensor in tensors.items()}
