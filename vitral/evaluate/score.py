"""Predictions of a classifier: accuracy, likelihoods, rows."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitral.data.device_transforms import to_multi_hot
from vitral.data.examples import Examples
from vitral.data.sources.listing import is_multi_label, label_text
from vitral.metrics import (
    THRESHOLD,
    answers_within,
    average_precisions,
    decision_counts,
    f1_scores,
    right_answers,
)
from vitral.statistics import wilson_interval


@dataclass(frozen=True)
class Predictions:
    """Predictions of a model for the readable examples of a split, in their order."""

    indices: np.ndarray
    """(N,) int64: the examples that were scored."""
    labels: np.ndarray
    """(N,) int64; for multi-label data (N, K) uint8 of 0 and 1."""
    probabilities: np.ndarray
    """(N, K) float32."""
    losses: np.ndarray
    """(N,) float64."""
    errors: dict[int, str]
    """Why an example could not be scored, by index."""


def summarise(predictions: Predictions, *, any_label: bool = False) -> dict[str, Any]:
    """Return `accuracy` with its 95 % interval, `loss`, and how many were scored or skipped.

    For multi-label data, `accuracy` is the share of images whose classes are all right. There are
    also `mean_average_precision`, `f1_macro` (the mean over classes) and `f1_micro` (over all pairs
    of image and class). With `any_label`, an answer is right if it is any of an image's classes,
    and `top5_accuracy` counts five answers.
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
            "f1_micro": _mean(f1_scores(*(array.sum(keepdims=True) for array in counts))),
        }
    return summary


def _mean(values: np.ndarray) -> float | None:
    """Return the mean of the values that are not NaN, or None if there are none."""
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if len(valid) else None


def prediction_rows(
    examples: Examples,
    predictions: Predictions,
    classes: tuple[str, ...],
    *,
    any_label: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield one row per example; unreadable examples have their error."""
    position = {index: row for row, index in enumerate(predictions.indices.tolist())}
    for index in range(len(examples)):
        row: dict[str, Any] = {
            "path": examples.name(index),
            "label": label_text(examples.labels[index], classes),
        }
        if index in position:
            shares = predictions.probabilities[position[index]]
            answer = classes[int(shares.argmax())]
            if not any_label:
                answer = answer_text(shares, examples.labels, classes)
            row |= {"class": answer}
            row |= {"probability": float(shares.max())}
        yield row | {"error": predictions.errors.get(index, "")}


def answer_text(shares: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> str:
    """Return the most probable class of (K,) as text, or all above the threshold if multi-label."""
    if is_multi_label(labels):
        return label_text(shares > THRESHOLD, classes)
    return classes[int(shares.argmax())]


def likelihoods(logits: Tensor, labels: Tensor, *, output: str) -> dict[str, Tensor]:
    """Return the probabilities and the likelihood of the labels that logits give.

    Args:
        logits: (N, K), of a model.
        labels: (N,); for multi-label data (N, K) of 0 and 1.
        output: "softmax" or "sigmoid".

    Returns:
        `probabilities` (N, K), and `nll` (N,), the cross-entropy of each example.
    """
    logits = logits.float()
    if output == "sigmoid":
        targets = to_multi_hot(labels, num_classes=logits.shape[1])
        losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return {"probabilities": logits.sigmoid(), "nll": losses.sum(dim=1)}
    shares = logits.softmax(dim=1)
    if labels.ndim == 2:  # any of an image's classes is right
        inside = logits.log_softmax(dim=1).masked_fill(labels == 0, -torch.inf)
        return {"probabilities": shares, "nll": -inside.logsumexp(dim=1)}
    return {
        "probabilities": shares,
        "nll": nn.functional.cross_entropy(logits, labels, reduction="none"),
    }
