"""Scoring a classifier: its evaluator, and the files and controls beside its score."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitral.data.images import Examples
from vitral.data.loading import Batch
from vitral.evaluate.controls import majority_control, pixel_accuracy
from vitral.evaluate.evaluator import Evaluator, MeanEvaluator, Metric, Scored, score
from vitral.evaluate.mistakes import confident_mistakes
from vitral.evaluate.outputs import evaluating
from vitral.evaluate.score import Predictions, likelihoods, prediction_rows, summarise
from vitral.files import atomic
from vitral.files.rows import csv_text
from vitral.spec.preprocessing import Preprocessing

ACCURACY = Metric("accuracy")


class ClassificationEvaluator(MeanEvaluator):
    """Loss and accuracy of a classifier; at the end of a run every prediction as well."""

    def __init__(self, primary: Metric = ACCURACY, *, keeps_predictions: bool = False) -> None:
        """Choose what is kept.

        Args:
            primary: what models are judged by.
            keeps_predictions: whether `probabilities` and `nll` are kept, of which then all figures
                are; else the means of what the objective itself measures are the figures.
        """
        super().__init__(primary)
        self.keeps_predictions = keeps_predictions
        self._parts: list[tuple[np.ndarray, ...]] = []

    def wants(self, output: str) -> bool:
        """Say whether an output is read."""
        return (output in ("probabilities", "nll")) == self.keeps_predictions

    def update(self, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Take in a batch."""
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
        """Take in what another one has of other examples."""
        super().merge(other)
        assert isinstance(other, ClassificationEvaluator)
        self._parts += other._parts

    def compute(self) -> dict[str, Any]:
        """Return the means; of predictions that are kept, what `summarise` does."""
        if not self.keeps_predictions:
            return super().compute()
        return summarise(self.predictions())

    def predictions(self) -> Predictions:
        """Return what was kept, in the order of examples."""
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
        """Write every prediction and the most confident mistakes; return the controls' scores."""
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
        model: images (N, C, H, W) to logits (N, K); put into evaluation mode for the time.
        examples: of one split.
        preprocessing: of the model.
        batch_size: changes no prediction beyond rounding.
        device: where the model is.
        precision: of the matrix products; scores are in float32 unless asked otherwise.
        loss: "softmax" or "sigmoid", which also says how logits become probabilities.
        workers: threads that decode; -1: by the number of cores.
        report_progress: called with the number of images done and of all.
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
    """Return what the score must be compared with."""
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
    atomic.write_text(folder / "test_predictions.csv", csv_text(rows, columns=columns))
    names = [examples.name(index) for index in predictions.indices.tolist()]
    np.savez_compressed(
        folder / "test_predictions.npz",
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
    np.savez_compressed(folder / "mistakes.npz", **mistakes)  # type: ignore[arg-type]
