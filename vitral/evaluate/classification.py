"""Scoring a classifier: its evaluator, and the files, controls and mistakes with its score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vitral.data.sources.listing import is_multi_label, label_text
from vitral.evaluate.controls import majority_control, pixel_accuracy
from vitral.evaluate.evaluator import Evaluator, MeanEvaluator, Metric, Scored, score
from vitral.evaluate.forward import evaluating, forward_examples
from vitral.evaluate.score import Predictions, answer_text, likelihoods, prediction_rows, summarise
from vitral.files import atomic
from vitral.files.layout import RunFile
from vitral.files.rows import csv_text
from vitral.metrics import right_answers
from vitral.models.model import Model

if TYPE_CHECKING:
    from vitral.config.preprocessing import Preprocessing
    from vitral.data.examples import Examples
    from vitral.data.workers import Batch

ACCURACY = Metric("accuracy")


class ClassificationEvaluator(MeanEvaluator):
    """Loss and accuracy of a classifier; at the end of a run also every prediction."""

    def __init__(self, primary: Metric = ACCURACY, *, keeps_predictions: bool = False) -> None:
        """Choose what is kept.

        Args:
            primary: the figure that models are judged by.
            keeps_predictions: whether to keep `probabilities` and `nll` and compute all figures
                from them; otherwise the figures are means of what the objective measures.
        """
        super().__init__(primary)
        self.keeps_predictions = keeps_predictions
        self._parts: list[tuple[np.ndarray, ...]] = []

    def wants(self, output: str) -> bool:
        """Return whether an output is read."""
        return (output in ("probabilities", "nll")) == self.keeps_predictions

    def update(self, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Add a batch."""
        if not self.keeps_predictions:
            super().update(batch, outputs)
            return
        columns = (
            batch["index"],
            batch["label"],
            outputs["probabilities"],
            outputs["nll"].double(),
        )
        valid = batch["valid"].numpy()
        self._parts.append(tuple(column.numpy()[valid] for column in columns))

    def merge(self, other: Evaluator) -> None:
        """Add the contents of an evaluator of other examples."""
        super().merge(other)
        assert isinstance(other, ClassificationEvaluator)
        self._parts += other._parts

    def compute(self) -> dict[str, Any]:
        """Return the means, or the result of `summarise` if predictions are kept."""
        if not self.keeps_predictions:
            return super().compute()
        return summarise(self.predictions())

    def predictions(self) -> Predictions:
        """Return the kept predictions, in the order of examples."""
        if not self._parts:
            empty = np.zeros(0, np.int64)
            return Predictions(empty, empty, np.zeros((0, 1), np.float32), np.zeros(0), self.errors)
        indices, labels, probabilities, losses = (
            np.concatenate(column) for column in zip(*self._parts, strict=True)
        )
        order = np.argsort(indices)
        return Predictions(
            indices[order],
            labels[order],
            probabilities[order],
            losses[order],
            dict(sorted(self.errors.items())),
        )

    def finish(self, folder: Path, scored: Scored) -> dict[str, Any]:
        """Write all predictions and the most confident mistakes; return the controls' scores."""
        predictions = self.predictions()
        _write_predictions(folder, scored, predictions)
        return _controls(scored, predictions) if len(predictions.labels) else {}


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
    report_progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Run a model over all examples.

    Args:
        model: images (N, C, H, W) to logits (N, K); temporarily in evaluation mode.
        examples: of one split.
        preprocessing: of the model.
        batch_size: affects predictions only by rounding.
        device: where the model is.
        precision: of the matrix products; scores are in float32 unless another one is given.
        loss: "softmax" or "sigmoid"; also the function that turns logits into probabilities.
        workers: decoding threads; -1: by the number of cores.
        report_progress: called with the number of images done and the total.
    """

    def function(batch: Batch) -> dict[str, Tensor]:
        return likelihoods(model(batch["image"]), batch["label"], output=loss)

    with evaluating(model):
        scored = score(
            function,
            ClassificationEvaluator(keeps_predictions=True),
            examples,
            preprocessing=preprocessing,
            batch_size=batch_size,
            device=device,
            precision=precision,
            workers=workers,
            report_progress=report_progress,
        )
    assert isinstance(scored, ClassificationEvaluator)
    return scored.predictions()


def _controls(scored: Scored, predictions: Predictions) -> dict[str, Any]:
    """Return the scores of the controls."""
    train, classes = scored.data.splits["train"], scored.data.classes
    return {
        **majority_control(train.labels, predictions.labels, classes),
        "pixel_accuracy": pixel_accuracy(
            train,
            scored.examples,
            preprocessing=scored.preprocessing,
            num_classes=len(classes),
        ),
    }


def _write_predictions(folder: Path, scored: Scored, predictions: Predictions) -> None:
    """Write `test_predictions.csv` and `.npz`, and `mistakes.npz`."""
    examples, classes = scored.examples, scored.data.classes
    rows = [
        *prediction_rows(examples, predictions, classes),
        *({"path": item.name, "error": item.reason} for item in scored.data.problems(scored.split)),
    ]
    columns = ("path", "label", "class", "probability", "error")
    atomic.write_text(folder / RunFile.PREDICTIONS, csv_text(rows, columns=columns))
    names = [examples.name(index) for index in predictions.indices.tolist()]
    np.savez_compressed(
        folder / RunFile.PROBABILITIES,
        labels=predictions.labels,
        probabilities=predictions.probabilities,
        names=np.array(names, np.str_),
    )
    mistakes = confident_mistakes(
        scored.model,
        examples,
        predictions,
        preprocessing=scored.preprocessing,
        device=scored.device,
        classes=classes,
    )
    np.savez_compressed(folder / RunFile.MISTAKES, **mistakes)  # type: ignore[arg-type]


@torch.no_grad()
def confident_mistakes(
    model: nn.Module,
    examples: Examples,
    predictions: Predictions,
    *,
    preprocessing: Preprocessing,
    device: torch.device,
    classes: tuple[str, ...],
    count: int = 24,
) -> dict[str, np.ndarray]:
    """Return the wrong predictions of highest probability, most confident first.

    Returns:
        `images` (M, h, w, C) uint8 as the model sees them, `attention` (M, gh, gw) of the last
        block (zeros where the model has none over the whole grid), `names`, `labels` and
        `predictions` as text, `probabilities` (M,).
    """
    confidence = _confidence(predictions)
    wrong = np.flatnonzero(~right_answers(predictions.probabilities, predictions.labels))
    rows = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    indices = predictions.indices[rows]
    images, attention = [], []
    for loaded, outputs in forward_examples(
        lambda batch: {"attention": attention_to_patches(model, batch["image"])},
        examples,
        preprocessing=preprocessing,
        batch_size=max(1, count),
        device=device,
        precision=torch.float32,
        errors={},
        indices=indices,
    ):
        images.append(
            loaded["image"].permute(0, 2, 3, 1).numpy().round().clip(0, 255).astype(np.uint8)
        )
        attention.append(outputs["attention"].numpy())
    height, width = preprocessing.size
    empty = np.zeros((0, height, width, preprocessing.channels), np.uint8)
    return {
        "images": np.concatenate([empty, *images]),
        "attention": np.concatenate(attention) if attention else np.zeros((0, 1, 1), np.float32),
        "names": np.array([examples.name(index) for index in indices.tolist()], np.str_),
        "labels": np.array(
            [label_text(label, classes) for label in predictions.labels[rows]], np.str_
        ),
        "predictions": np.array(
            [
                answer_text(shares, predictions.labels, classes)
                for shares in predictions.probabilities[rows]
            ],
            np.str_,
        ),
        "probabilities": confidence[rows],
    }


def _confidence(predictions: Predictions) -> np.ndarray:
    """Return the confidence of each answer (N,); for multi-label, the largest error of a class."""
    if is_multi_label(predictions.labels):
        off: np.ndarray = np.abs(predictions.probabilities - predictions.labels).max(axis=1)
        return off
    most: np.ndarray = predictions.probabilities.max(axis=1)
    return most


def attention_to_patches(model: nn.Module, images: Tensor) -> Tensor:
    """Return the last block's attention to each patch (N, gh, gw), averaged over heads.

    The query is the class token, or the mean over all patches if there is none. Models without
    full attention get zeros of shape (N, 1, 1).
    """
    zeros = torch.zeros(len(images), 1, 1)
    if not isinstance(model, Model):
        return zeros
    full = [layer for layer in model.attention_layers() if layer.kind == "full"]
    if not full:
        return zeros
    name, layout = full[-1].name, model.layout()
    attention = model.trace(images, [name])[name].mean(dim=1)
    queries = attention[:, 0] if layout.has_class_token else attention.mean(dim=1)
    return queries[:, layout.num_prefix_tokens :].unflatten(1, layout.grid)
