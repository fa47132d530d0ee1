"""The training state, including the moving average of the weights."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitral.runtime.distributed import all_sharded_like, sharded_like, unsharded
from vitral.training.best import BestModel
from vitral.training.objectives.base import Objective
from vitral.training.optimizer import load_optimizer_tensors, optimizer_tensors


def decay_of(half_life_share: float, *, total_steps: int) -> float:
    """Return the decay for a half-life given as a share of the run."""
    decay: float = 0.5 ** (1 / max(half_life_share * total_steps, 1e-9))
    return decay


class WeightAverage:
    """Exponential moving average of trained weights and of the model's buffers."""

    def __init__(self, objective: nn.Module, *, decay: float) -> None:
        """Start from the current weights, which no average after a step contains.

        Args:
            objective: whose weights are averaged: all tensors of its `model`, and the trained
                parameters outside of it.
            decay: weight of the previous average in a step.
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
        """Add the weights after a step to the average.

        After step s, the weights of step r count as decay^(s - r), normalised to a sum of 1.

        Args:
            objective: with the weights.
            step: that was done, from 0.
            finite: a scalar on the device, 0 if the step did not change the weights: then the
                average does not change either; None: it did.
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
        else:  # decided on the device: the host does not wait
            for average, value in zip(averages, values, strict=True):
                moved = torch.lerp(average, value, share)  # may be NaN: selected, not scaled
                average.copy_(torch.where(finite > 0, moved, average))
        for name in self.tensors.keys() - set(floating):
            value = current[name]
            if finite is not None:
                value = torch.where(finite > 0, value, self.tensors[name])
            self.tensors[name].copy_(value)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore a saved average."""
        for name, tensor in self.tensors.items():
            tensor.copy_(sharded_like(tensors[name], tensor))


@contextlib.contextmanager
def using_average(objective: nn.Module, average: WeightAverage | None) -> Iterator[None]:
    """Use the averaged weights of an objective temporarily, if there are any."""
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
"""First components of the tensor names, before a slash."""


@dataclass
class TrainState:
    """The part of a run that changes during training and is saved."""

    objective: Objective
    """Owns the model as `.model`, and everything else that is trained."""
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    best: BestModel | None = None
    """The best model on the validation images; None: the last one is kept."""
    step: int = 0
    """Optimizer steps done."""

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name: `objective/model.head.weight`, `optimizer/exp_avg/model...`.

        They are not copies.
        """
        parts: dict[str, Mapping[str, Tensor]] = {
            "objective": self.objective.state_dict(),
            "average": self.average.tensors if self.average else {},
            "best": self.best.tensors if self.best else {},
            "optimizer": optimizer_tensors(self.optimizer),
        }
        return {f"{part}/{name}": tensor for part in PARTS for name, tensor in parts[part].items()}

    def progress(self) -> dict[str, Any]:
        """Return the state that is not in tensors, as plain data."""
        return {"step": self.step, "best": self.best.progress() if self.best else None}

    def load(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Restore the values of `tensors`, gathered, and `progress`."""
        objective = part_of(tensors, "objective")
        self.objective.load_state_dict(all_sharded_like(objective, self.objective.state_dict()))
        load_optimizer_tensors(self.optimizer, part_of(tensors, "optimizer"))
        if self.average:
            self.average.load(part_of(tensors, "average"))
        if self.best and progress["best"]:
            self.best.load(part_of(tensors, "best"), progress["best"])
        self.step = progress["step"]


def part_of(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return the tensors of one part, by name without the prefix."""
    start = f"{part}/"
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return unsharded tensors in every process; all processes must call this together.

    Tensors that are not sharded are returned as they are.
    """
    return {name: unsharded(tensor) for name, tensor in tensors.items()}
