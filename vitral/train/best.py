"""The model to keep by its scores on the validation images, and when to stop looking further."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitral.errors import DivergedError, RequestError
from vitral.spec.run import EvaluationSettings

Score = tuple[float, float]
"""Accuracy, where there is one, and minus the loss: larger is better."""


class BestModel:
    """Weights and buffers of the latest model that is as good as the best."""

    def __init__(self, model: nn.Module, *, within: float = 0.0, num_images: int = 1) -> None:
        """Begin with the model's own, which no score stands for yet.

        Args:
            model: whose tensors are kept.
            within: standard errors of the best accuracy that a later one may be below it and still
                count as good; 0: only a better score does. Two answers more of each kind keep the
                error above 0 (Agresti and Coull, 1998).
            num_images: that scores are means over.
        """
        self.within, self.num_images = within, num_images
        self.tensors = {name: t.detach().clone() for name, t in model.state_dict().items()}
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
            tensor.copy_(tensors[name])
        score = progress["score"]
        self.score = tuple(score) if score else None
        self.step, self.num_worse = progress["step"], progress["num_worse"]


def score_of(means: Mapping[str, float], *, settings: EvaluationSettings) -> Score:
    """Return the score that a row of validation figures stands for.

    Args:
        means: `loss`, and `accuracy` where there is one.
        settings: the accuracy counts, and of equals the smaller loss; or the loss alone.

    Raises:
        RequestError: standard errors are asked for, of an accuracy that is not there or no share.
    """
    accuracy = means.get("accuracy", 0.0) if settings.best_by == "accuracy" else 0.0
    if settings.best_within and not 0 <= means.get("accuracy", -1.0) <= 1:
        raise RequestError(
            f"evaluation.best_within={settings.best_within:g} needs an accuracy in 0..1 from the "
            f"objective, which gives {means.get('accuracy', 'none')}: set it to 0"
        )
    return (accuracy, -means["loss"])
