"""Cross-entropy with softmax or sigmoid; sigmoid also for multi-label images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitral.config.checks import check_share
from vitral.config.run import ObjectiveSettings
from vitral.data.dataset import ImageDataset
from vitral.data.device_transforms import to_multi_hot
from vitral.data.workers import Batch
from vitral.errors import RequestError
from vitral.evaluate.classification import ClassificationEvaluator
from vitral.evaluate.evaluator import Evaluator
from vitral.evaluate.score import likelihoods
from vitral.models.model import OUTPUTS, Model
from vitral.training.objectives.base import Loss, Objective


@dataclass(frozen=True)
class ClassificationSettings(ObjectiveSettings):
    """Settings of "softmax" and "sigmoid"."""

    label_smoothing: float = 0.0
    """Share of each target spread evenly over all classes (arXiv 1512.00567, section 7)."""

    def __post_init__(self) -> None:
        check_share(label_smoothing=self.label_smoothing)


class ClassObjective(Objective):
    """Base class of objectives for models whose outputs are classes."""

    is_judged_by_share = True

    @classmethod
    def num_outputs(cls, data: ImageDataset, settings: ObjectiveSettings) -> int:
        """Return the number of classes."""
        return len(data.classes)

    @classmethod
    def fit_recipe(
        cls, recipe: Mapping[str, Any], given: Mapping[str, Any], data: ImageDataset
    ) -> dict[str, Any]:
        """Select the best model by its loss for multi-label images.

        All labels of an image are rarely right.
        """
        settings = super().fit_recipe(recipe, given, data)
        return judged_by_loss(settings, given) if data.is_multi_label else settings

    output = "softmax"
    """How logits become probabilities, "softmax" or "sigmoid"."""

    def outputs(self, batch: Batch, *, final: bool) -> dict[str, Tensor]:
        """Return loss and metrics of each example; if final, likelihoods from the logits."""
        if final:
            return likelihoods(self.model(batch["image"]), batch["label"], output=self.output)
        values, metrics = self(batch)
        return {"loss": values, **metrics}

    def evaluator(self, data: ImageDataset, *, final: bool) -> Evaluator:
        """Return an evaluator of loss and accuracy; if final, of all predictions with controls."""
        return ClassificationEvaluator(keeps_predictions=final)


class Classification(ClassObjective):
    """Softmax or sigmoid cross-entropy with labels, smoothed and mixed in training."""

    settings_type: ClassVar[type[ObjectiveSettings]] = ClassificationSettings
    mixing: ClassVar[bool] = True

    def __init__(self, model: nn.Module, settings: ObjectiveSettings | None = None) -> None:
        """Own a model.

        Args:
            model: images (N, C, H, W) to logits (N, K).
            settings: `name` is "softmax", or "sigmoid", summed over classes as in the official
                code; smoothing is applied in training only.
        """
        super().__init__(model, settings)
        assert isinstance(self.settings, ClassificationSettings)
        self.label_smoothing = self.settings.label_smoothing
        if self.settings.name in OUTPUTS:  # else the name of the caller's own subclass
            self.output = self.settings.name
        self.uses_all = isinstance(model, Model)
        if isinstance(model, Model):
            model.output = self.output

    @classmethod
    def check_data(cls, data: ImageDataset, settings: ObjectiveSettings) -> None:
        """Refuse softmax for images of several classes."""
        if data.is_multi_label and settings.name == "softmax":
            raise RequestError(
                "objective.name='softmax' is for one class an image, these may have any: use "
                "sigmoid"
            )

    def forward(self, batch: Batch) -> Loss:
        """Return the loss (N,) and the metrics, (N,) each, of every example."""
        return self._loss(self.model(batch["image"]).float(), batch)

    def _loss(self, logits: Tensor, batch: Batch) -> Loss:
        return Loss(self.losses(logits, batch), {"accuracy": is_right(logits, batch).float()})

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy (N,) of logits (N, K) with the batch's labels."""
        if self.output == "softmax" and "mix_share" not in batch:
            smoothing = self.label_smoothing if self.training else 0.0
            return F.cross_entropy(
                logits, batch["label"], reduction="none", label_smoothing=smoothing
            )
        targets = self.mixed_targets(batch, num_classes=logits.shape[1])
        if self.output == "softmax":
            return F.cross_entropy(logits, targets, reduction="none")
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)

    def mixed_targets(self, batch: Batch, *, num_classes: int) -> Tensor:
        """Return the target share of each class (N, K)."""
        targets = to_multi_hot(batch["label"], num_classes=num_classes)
        if "mix_share" in batch:
            other = to_multi_hot(batch["mix_label"], num_classes=num_classes)
            targets = torch.lerp(other, targets, batch["mix_share"].unsqueeze(1))
        if self.training and self.label_smoothing:
            targets = targets * (1 - self.label_smoothing) + self.label_smoothing / num_classes
        return targets


def judged_by_loss(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Select the best model by its loss, unless the user has set another criterion."""
    is_asked = any(f"evaluation.{name}" in given for name in ("best_by", "best_within"))
    if is_asked or not recipe.get("evaluation.keep_best"):
        return dict(recipe)
    settings = {path: value for path, value in recipe.items() if path != "evaluation.best_within"}
    return settings | {"evaluation.best_by": "loss"}


def is_right(logits: Tensor, batch: Batch) -> Tensor:
    """Return for each image (N,) whether its class, or all of its classes, are right."""
    label = _main_label(batch)
    if label.ndim == 2:
        return ((logits > 0) == label.bool()).all(dim=1)
    return logits.argmax(dim=1) == label


def _main_label(batch: Batch) -> Tensor:
    """Return the label with the larger share in each mixed image."""
    label = batch["label"]
    if "mix_share" not in batch:
        return label
    is_first = batch["mix_share"] >= 0.5
    return torch.where(is_first.view(-1, *[1] * (label.ndim - 1)), label, batch["mix_label"])
