"""The moving average of the weights."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitral.runtime.distributed import all_sharded_like, sharded_like, whole
from vitral.training.best import BestModel
from vitral.training.objectives.base import Objective
from vitral.training.optimizer import load_optimizer_tensors, optimizer_tensors


def decay_of(half_life_share: float, *, total_steps: int) -> float:
    """Return the decay with which a step's weights count half after a share of the run."""
    decay: float = 0.5 ** (1 / max(half_life_share * total_steps, 1e-9))
    return decay


class WeightAverage:
    """An exponential moving average of what learns: weights, and the model's buffers."""

    def __init__(self, objective: nn.Module, *, decay: float) -> None:
        """Begin with the present weights, which no average after a step contains.

        Args:
            objective: whose weights are averaged: all tensors of its `model`, and of what lies
                beside it the parameters that are trained.
            decay: what the average keeps of itself in a step.
        """
        self.decay = decay
        trained = {name for name, p in objective.named_parameters() if p.requires_grad}
        self.tensors = {
            name: tensor.detach().clone()
            for name, tensor in objective.state_dict().items()
            if name.startswith("model.") or name in trained
        }

    @torch.no_grad()
    def update(self, objective: nn.Module, *, step: int, finite: Tensor | None = None) -> None:
        """Take in the weights after a step, counted from 0.

        After step s, those of step r count as decay^(s - r), scaled so that all sum to 1.

        Args:
            objective: with the weights.
            step: done, from 0.
            finite: a scalar on the device, 0 where the step did not move the weights: then the
                average does not move either; None: it did.
        """
        share = (1 - self.decay) / (1 - self.decay ** (step + 1))
        if finite is not None and finite.device.type == "cpu":
            if not finite:
                return
            finite = None
        current = objective.state_dict()
        floating = [name for name, t in self.tensors.items() if t.is_floating_point()]
        averages = [self.tensors[name] for name in floating]
        values = [current[name] for name in floating]
        if finite is None:
            torch._foreach_lerp_(averages, values, share)
        else:  # the device knows, and the host does not wait for it
            for average, value in zip(averages, values, strict=True):
                moved = torch.lerp(average, value, share)  # may be NaN: selected, not scaled
                average.copy_(torch.where(finite > 0, moved, average))
        for name in self.tensors.keys() - set(floating):
            value = current[name]
            if finite is not None:
                value = torch.where(finite > 0, value, self.tensors[name])
            self.tensors[name].copy_(value)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put an average that was saved back in place."""
        for name, tensor in self.tensors.items():
            tensor.copy_(sharded_like(tensors[name], tensor))


@contextlib.contextmanager
def using_average(objective: nn.Module, average: WeightAverage | None) -> Iterator[None]:
    """Give an objective its averaged weights for a while, if there are any."""
    if average is None:
        yield
        return
    current = objective.state_dict()
    raw = {name: current[name].clone() for name in average.tensors}
    objective.load_state_dict(average.tensors, strict=False)
    try:
        yield
    finally:
        objective.load_state_dict(raw, strict=False)


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
