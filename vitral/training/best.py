"""Best-model selection by validation scores, and early stopping."""

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
"""(primary metric, or 0 if only the loss counts; minus the loss): larger is better."""


class BestModel:
    """All tensors of an objective at the latest step whose model was as good as the best."""

    def __init__(self, objective: nn.Module, *, within: float = 0.0, num_images: int = 1) -> None:
        """Start with the current tensors, which have no score yet.

        Args:
            objective: whose tensors are kept: the model's, and those of heads that score it.
            within: how many standard errors below the best metric a later one may be and still
                count as good; 0: only a better score counts. Adding two successes and two failures
                keeps the error above 0 (Agresti and Coull, 1998).
            num_images: number of images that scores are means over.
        """
        self.within, self.num_images = within, num_images
        self.tensors = {name: t.detach().clone() for name, t in objective.state_dict().items()}
        self.score: Score | None = None
        """The best so far."""
        self.step = 0
        """At which the kept model was reached."""
        self.num_worse = 0
        """Number of scores since then that were not as good."""

    def consider(self, tensors: Mapping[str, Tensor], *, score: Score, step: int) -> None:
        """Keep a model's tensors if its score is the best so far, or as good.

        Raises:
            DivergedError: the score is NaN.
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
        """Return whether `patience` scores in a row were not as good; with 0: never.

        Training continues as long as the untrained model is the one that is kept.
        """
        return bool(patience) and self.step > 0 and self.num_worse >= patience

    def progress(self) -> dict[str, Any]:
        """Return everything but the tensors, as plain data."""
        return {"score": self.score, "step": self.step, "num_worse": self.num_worse}

    def load(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Restore saved tensors and progress."""
        for name, tensor in self.tensors.items():
            if name in tensors:  # older versions saved only the model's
                tensor.copy_(sharded_like(tensors[name], tensor))
        score = progress["score"]
        self.score = tuple(score) if score else None
        self.step, self.num_worse = progress["step"], progress["num_worse"]


def score_of(figures: Mapping[str, Any], *, primary: Metric, settings: EvaluationSettings) -> Score:
    """Return the score of a row of validation metrics.

    Args:
        figures: metrics of an evaluator.
        primary: the metric that counts; ties are decided by the smaller loss.
        settings: whether the metric counts or only the loss; within how many standard errors.

    Raises:
        RequestError: standard errors are requested for a metric that is not a share in 0..1.
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
