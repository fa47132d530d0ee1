"""The model to keep by its scores on the validation images, and when to stop looking further."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitral.config.run import EvaluationSettings
from vitral.errors import DivergedError, RequestError
from vitral.evaluate.evaluator import Metric
from vitral.runtime.distributed import sharded_like

Score = tuple[float, float]
"""The primary figure, or 0 where the loss alone judges, and minus the loss: larger is better."""


class BestModel:
    """All tensors of an objective when its model was the latest that is as good as the best."""

    def __init__(self, objective: nn.Module, *, within: float = 0.0, num_images: int = 1) -> None:
        """Begin with what it has now, which no score stands for yet.

        Args:
            objective: whose tensors are kept: the model's, and those of heads that score it.
            within: standard errors of the best figure that a later one may be below it and still
                count as good; 0: only a better score does. Two answers more of each kind keep the
                error above 0 (Agresti and Coull, 1998).
            num_images: that scores are means over.
        """
        self.within, self.num_images = within, num_images
        self.tensors = {name: t.detach().clone() for name, t in objective.state_dict().items()}
        self.score: Score | None = None
        """The best so far."""
        self.step = 0
        """Of the model that is kept."""
        self.num_worse = 0
        """Scores since then."""

    def consider(self, tensors: Mapping[str, Tensor], *, score: Score, step: int) -> None:
        """Take a model's tensors if its score is the best so far, or as good.

        Raises:
            DivergedError: the score is no number.
        """
        if any(math.isnan(value) for value in score):
            raise DivergedError(
                f"step {step}: the validation loss is not a number: lower --learning-rate"
            )
        if self.score is not None and score <= self.score and not self._is_as_good(score):
            self.num_worse += 1
            return
        self.score = score if self.score is None else max(self.score, score)
        self.step, self.num_worse = step, 0
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(tensors[name])

    def _is_as_good(self, score: Score) -> bool:
        if not self.within:
            return False
        assert self.score is not None
        best = self.score[0]
        share = (best * self.num_images + 2) / (self.num_images + 4)
        error = math.sqrt(share * (1 - share) / self.num_images)
        return score[0] >= best - self.within * error

    def is_exhausted(self, patience: int) -> bool:
        """Say whether `patience` scores in a row were not as good; 0: never.

        While the untrained model is the one that is kept, training goes on.
        """
        return bool(patience) and self.step > 0 and self.num_worse >= patience

    def progress(self) -> dict[str, Any]:
        """Return all but the tensors, as plain data."""
        return {"score": self.score, "step": self.step, "num_worse": self.num_worse}

    def load(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Put what was saved back in place."""
        for name, tensor in self.tensors.items():
            if name in tensors:  # older versions kept the model's alone
                tensor.copy_(sharded_like(tensors[name], tensor))
        score = progress["score"]
        self.score = tuple(score) if score else None
        self.step, self.num_worse = progress["step"], progress["num_worse"]


def score_of(figures: Mapping[str, Any], *, primary: Metric, settings: EvaluationSettings) -> Score:
    """Return the score that a row of validation figures stands for.

    Args:
        figures: of an evaluator.
        primary: the figure that counts; of equals the smaller loss.
        settings: whether it counts, or the loss alone; within how many standard errors.

    Raises:
        RequestError: standard errors are asked for, of a figure that is no share in 0..1.
    """
    if settings.best_by == "accuracy" != primary.name:
        raise RequestError(
            f"evaluation.best_by='accuracy': the objective is judged by {primary.name}: use "
            "primary, or loss"
        )
    value = figures.get(primary.name)
    is_share = primary.larger_is_better and value is not None and 0 <= value <= 1
    if settings.best_within and not is_share:
        raise RequestError(
            f"evaluation.best_within={settings.best_within:g} needs a share in 0..1 that is better "
            f"when larger, the objective gives {primary.name}={value}: set it to 0"
        )
    judged = 0.0
    if settings.best_by != "loss" and value is not None:
        judged = value if primary.larger_is_better else -value
    return (judged, -float(figures.get("loss") or 0.0))
