"""Cross-entropy over classes, softmax or sigmoid; sigmoid also for images of any classes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitral.data.batches import class_marks
from vitral.data.loading import Batch


class Classification(nn.Module):
    """Softmax or sigmoid cross-entropy against labels, smoothed and mixed in training."""

    def __init__(
        self, model: nn.Module, *, loss: str = "softmax", label_smoothing: float = 0.0
    ) -> None:
        """Own a model.

        Args:
            model: images (N, C, H, W) to logits (N, K).
            loss: "softmax", or "sigmoid" summed over classes as the official code does.
            label_smoothing: share of each target spread over all classes; in training only.
        """
        super().__init__()
        self.model = model
        self.loss = loss
        self.label_smoothing = label_smoothing

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss (N,) and the metrics, (N,) each, of every example."""
        logits = self.model(batch["image"]).float()
        return self.losses(logits, batch), {"accuracy": _right(logits, batch).float()}

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy (N,) of logits (N, K) against the batch's labels."""
        if self.loss == "softmax" and "mix_share" not in batch:
            smoothing = self.label_smoothing if self.training else 0.0
            return F.cross_entropy(
                logits, batch["label"], reduction="none", label_smoothing=smoothing
            )
        targets = self.targets(batch, num_classes=logits.shape[1])
        if self.loss == "softmax":
            return F.cross_entropy(logits, targets, reduction="none")
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)

    def targets(self, batch: Batch, *, num_classes: int) -> Tensor:
        """Return the share of each class (N, K) that the logits should show."""
        targets = class_marks(batch["label"], num_classes=num_classes)
        if "mix_share" in batch:
            other = class_marks(batch["mix_label"], num_classes=num_classes)
            targets = torch.lerp(other, targets, batch["mix_share"].unsqueeze(1))
        if self.training and self.label_smoothing:
            targets = targets * (1 - self.label_smoothing) + self.label_smoothing / num_classes
        return targets


def _right(logits: Tensor, batch: Batch) -> Tensor:
    """Say for each image (N,) whether its class is right, or all of its classes are."""
    label = _main_label(batch)
    if label.ndim == 2:
        return ((logits > 0) == label.bool()).all(dim=1)
    return logits.argmax(dim=1) == label


def _main_label(batch: Batch) -> Tensor:
    """Return the label of which each image shows most."""
    label = batch["label"]
    if "mix_share" not in batch:
        return label
    is_own = batch["mix_share"] >= 0.5
    return torch.where(is_own.view(-1, *[1] * (label.ndim - 1)), label, batch["mix_label"])
