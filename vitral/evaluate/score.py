"""Score a model on a split: every image exactly once, at any batch size, on any processes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from vitral.data.batches import class_marks, to_model
from vitral.data.images import Examples
from vitral.data.labels import is_multi_label
from vitral.data.loader import evaluation_batches
from vitral.errors import DataError
from vitral.figures.measures import (
    answers_within,
    average_precisions,
    decision_counts,
    f1_scores,
    right_answers,
)
from vitral.runtime.device import autocast
from vitral.runtime.ranks import Ranks
from vitral.spec.preprocessing import Preprocessing

_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Predictions:
    """What a model says of the examples of a split, in their order, without unreadable ones."""

    indices: np.ndarray
    """(N,) int64: the examples that were scored."""
    labels: np.ndarray
    """(N,) int64; where images may have any classes (N, K) uint8 of 0 and 1."""
    probabilities: np.ndarray
    """(N, K) float32."""
    losses: np.ndarray
    """(N,) float64."""
    errors: dict[int, str]
    """Why an example could not be scored, by index."""


@torch.no_grad()
def predict_examples(
    model: nn.Module,
    examples: Examples,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    loss: str = "softmax",
    workers: int = -1,
    ranks: Ranks | None = None,
    report_progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Run a model over all examples.

    Args:
        model: images (N, C, H, W) to logits (N, K); put into evaluation mode for the time.
        examples: of one split.
        preprocessing: of the model.
        batch_size: changes no prediction beyond rounding.
        device: where the model is.
        precision: of the matrix products; scores are in float32 unless asked otherwise.
        loss: "softmax" or "sigmoid", which also says how logits become probabilities.
        workers: threads that decode; -1: by the number of cores.
        ranks: the processes that share the work; each image goes to one of them.
        report_progress: called with the number of images done and of all.
    """
    ranks = ranks or Ranks()
    mine = np.arange(len(examples))[ranks.rank :: ranks.world_size]
    errors: dict[int, str] = {}
    parts: list[tuple[np.ndarray, ...]] = []
    done = 0
    was_training = model.training
    model.eval()
    for loaded in evaluation_batches(
        examples,
        preprocessing=preprocessing,
        batch_size=batch_size,
        errors=errors,
        workers=workers,
        indices=mine,
    ):
        batch = to_model(loaded, device=device, preprocessing=preprocessing)
        with autocast(device, precision):
            logits = model(batch["image"]).float()
        losses, probabilities = _losses_and_probabilities(logits, batch["label"], loss=loss)
        columns = (batch["index"], batch["label"], probabilities, losses)
        valid = loaded["valid"].numpy()
        parts.append(tuple(column.cpu().numpy()[valid] for column in columns))
        done += len(valid)
        ranks.mark_progress()
        if report_progress:
            report_progress(done * ranks.world_size, len(examples))
    model.train(was_training)
    return _merge(ranks.gather((parts, errors)))


def summarise(predictions: Predictions, *, any_label: bool = False) -> dict[str, Any]:
    """Return `accuracy` with its 95 % interval, `loss`, and how many were scored or not.

    Where images may have any classes, `accuracy` is the share of images whose classes are all
    right; beside it stand `mean_average_precision`, `f1_macro` (the mean over classes) and
    `f1_micro` (over all pairs of image and class). With `any_label` an answer is right if it is any
    of an image's classes, and `top5_accuracy` counts five answers.
    """
    labels, probabilities = predictions.labels, predictions.probabilities
    count = len(labels)
    answers = answers_within(probabilities, labels, most=1) if any_label else None
    right = int((right_answers(probabilities, labels) if answers is None else answers).sum())
    summary = {
        "accuracy": right / count if count else None,
        "accuracy_interval": list(wilson_interval(right, count)) if count else None,
        "loss": math.fsum(predictions.losses) / count if count else None,
        "num_examples": count,
        "num_skipped": len(predictions.errors),
    }
    if count and any_label:
        summary["top5_accuracy"] = float(answers_within(probabilities, labels, most=5).mean())
    elif count and is_multi_label(labels):
        counts = decision_counts(probabilities, labels)
        summary |= {
            "mean_average_precision": _mean(average_precisions(probabilities, labels)),
            "f1_macro": _mean(f1_scores(*counts)),
            "f1_micro": _mean(f1_scores(*(own.sum(keepdims=True) for own in counts))),
        }
    return summary


def _mean(values: np.ndarray) -> float | None:
    """Return the mean over what is a number, or None."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion.

    Source: Wilson, JASA 22 (1927), pages 209 to 212.
    """
    z2 = _NORMAL_95**2
    centre = (right + z2 / 2) / (count + z2)
    half = _NORMAL_95 / (count + z2) * math.sqrt(right * (count - right) / count + z2 / 4)
    return (max(0.0, centre - half), min(1.0, centre + half))


def _losses_and_probabilities(
    logits: torch.Tensor, labels: torch.Tensor, *, loss: str
) -> tuple[torch.Tensor, torch.Tensor]:
    if loss == "sigmoid":
        targets = class_marks(labels, num_classes=logits.shape[1])
        losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return losses.sum(dim=1).double(), logits.sigmoid()
    if labels.ndim == 2:  # any of an image's classes is right
        inside = logits.log_softmax(dim=1).masked_fill(labels == 0, -torch.inf)
        return -inside.logsumexp(dim=1).double(), logits.softmax(dim=1)
    losses = nn.functional.cross_entropy(logits, labels, reduction="none").double()
    return losses, logits.softmax(dim=1)


def _merge(gathered: list[tuple[list[tuple[np.ndarray, ...]], dict[int, str]]]) -> Predictions:
    parts = [part for parts, _ in gathered for part in parts]
    errors = {index: reason for _, own in gathered for index, reason in own.items()}
    indices, labels, probabilities, losses = (np.concatenate(c) for c in zip(*parts, strict=True))
    order = np.argsort(indices)
    return Predictions(
        indices[order],
        labels[order],
        probabilities[order],
        losses[order],
        dict(sorted(errors.items())),
    )


@torch.no_grad()
def mean_over_examples(
    objective: nn.Module,
    examples: Examples,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    device: torch.device,
    workers: int = -1,
    ranks: Ranks | None = None,
) -> dict[str, float]:
    """Return the mean `loss` and metrics of an objective over all examples, in float32.

    Raises:
        DataError: no image could be read.
    """
    ranks = ranks or Ranks()
    mine = np.arange(len(examples))[ranks.rank :: ranks.world_size]
    columns: dict[str, list[np.ndarray]] = {}
    was_training = objective.training
    objective.eval()
    for loaded in evaluation_batches(
        examples,
        preprocessing=preprocessing,
        batch_size=batch_size,
        errors={},
        workers=workers,
        indices=mine,
    ):
        losses, metrics = objective(to_model(loaded, device=device, preprocessing=preprocessing))
        for name, values in {"loss": losses, **metrics}.items():
            valid = values.double().cpu().numpy()[loaded["valid"].numpy()]
            columns.setdefault(name, []).append(valid)
        ranks.mark_progress()
    objective.train(was_training)
    sums = {
        name: (math.fsum(np.concatenate(parts)), sum(map(len, parts)))
        for name, parts in columns.items()
    }
    gathered = ranks.gather(sums)
    names = list(dict.fromkeys(name for own in gathered for name in own))
    totals = {
        name: [math.fsum(own[name][0] for own in gathered if name in own),
               sum(own[name][1] for own in gathered if name in own)]
        for name in names
    }  # fmt: skip
    if not names or not totals["loss"][1]:
        raise DataError("no image of the validation split could be read: check the files")
    return {name: total / count for name, (total, count) in totals.items()}
