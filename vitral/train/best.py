"""The model that scored best on the validation images so far, and when to stop looking further."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitral.errors import DivergedError

Score = tuple[float, float]
"""Accuracy, where there is one, and minus the loss: larger is better."""


class BestModel:
    """Weights and buffers of the best score, and how many scores came after it."""

    def __init__(self, model: nn.Module) -> None:
        """Begin with the model's own, which no score stands for yet."""
        self.tensors = {name: t.detach().clone() for name, t in model.state_dict().items()}
        self.score: Score | None = None
        self.step = 0
        self.num_worse = 0
        """Scores since the best one."""

    def consider(self, tensors: Mapping[str, Tensor], *, score: Score, step: int) -> None:
        """Take a model's tensors if its score is better than all before.

        Raises:
            DivergedError: the score is no number.
        """
        if any(math.isnan(value) for value in score):
            raise DivergedError(
                f"step {step}: the validation loss is not a number: lower --learning-rate"
            )
        if self.score is not None and score <= self.score:
            self.num_worse += 1
            return
        self.score, self.step, self.num_worse = score, step, 0
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(tensors[name])

    def is_exhausted(self, patience: int) -> bool:
        """Say whether more than `patience` scores brought nothing better; 0: never."""
        return bool(patience) and self.num_worse >= patience

    def progress(self) -> dict[str, Any]:
        """Return all but the tensors, as plain data."""
        return {"score": self.score, "step": self.step, "num_worse": self.num_worse}

    def load(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Put what was saved back in place."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
        score = progress["score"]
        self.score = tuple(score) if score else None
        self.step, self.num_worse = progress["step"], progress["num_worse"]


def score_of(means: Mapping[str, float], *, by: str) -> Score:
    """Return the score that a row of validation figures stands for.

    Args:
        means: `loss`, and `accuracy` where there is one.
        by: "accuracy" (of equals the smaller loss is better), or "loss" alone.
    """
    accuracy = means.get("accuracy", 0.0) if by == "accuracy" else 0.0
    return (accuracy, -means["loss"])
