"""The end of a run: the model folder, the test opened once, the controls and the report."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vitral.data.images import ImageData
from vitral.data.order import steps_per_epoch
from vitral.evaluate.accuracy import prediction_rows
from vitral.evaluate.controls import majority_control, pixel_accuracy
from vitral.evaluate.mistakes import confident_mistakes
from vitral.evaluate.score import Predictions, predict_examples, summarise
from vitral.figures.report import write_report
from vitral.files import atomic
from vitral.files.rows import csv_text
from vitral.models.weights.folder import write_model_files
from vitral.train.best import BestModel
from vitral.train.fewshot import FewshotScorer
from vitral.train.folder import RunFolder
from vitral.train.loop import Machine
from vitral.train.resolve import ResolvedRun


@dataclass(frozen=True)
class Result:
    """What a run gives."""

    model: nn.Module
    """With its final weights, in evaluation mode."""
    summary: dict[str, Any]
    """The final figures, as in `summary.json`."""
    path: Path
    """The run folder."""


def scored_split(data: ImageData) -> str | None:
    """Return the split that the final score is on: test, else validation, else none."""
    return next((split for split in ("test", "validation") if split in data.splits), None)


def read_result(folder: RunFolder) -> dict[str, Any]:
    """Return the summary of a finished run."""
    summary: dict[str, Any] = json.loads((folder.path / "summary.json").read_text(encoding="utf-8"))
    return summary


@dataclass(frozen=True)
class Ending:
    """Writes the result of a run whose model has its final weights; all processes take part."""

    model: nn.Module
    resolved: ResolvedRun
    data: ImageData
    title: str
    """A short name of the data."""
    folder: RunFolder
    machine: Machine
    provenance: Mapping[str, Any]
    """What the model folder says of its origin."""
    steps_done: int
    """Fewer than asked for where training stopped early."""
    best: BestModel | None = None
    """Whose weights the model has, where the best on validation are kept."""
    fewshot: FewshotScorer | None = None
    """Of the first process, where few-shot scores are asked for."""

    def write(self) -> dict[str, Any]:
        """Score the model, write model, summary and report, and return the summary."""
        self.model.eval()
        split = scored_split(self.data)
        predictions = self._predict(split) if split else None
        summary: dict[str, Any] = {}
        self.machine.ranks.on_first(lambda: summary.update(self._write_all(split, predictions)))
        result: dict[str, Any] = self.machine.ranks.from_first(summary)
        return result

    def _write_all(self, split: str | None, predictions: Predictions | None) -> dict[str, Any]:
        """Write everything; the run is done when all of it is there."""
        self._write_model()
        summary = self._summarise(split, predictions)
        if split and predictions:
            self._write_predictions(split, predictions)
        atomic.write_json(self.folder.path / "summary.json", summary)
        steps = self.resolved.config.train.steps
        self.folder.write_status("done", step=self.steps_done, steps=steps)
        write_report(self.folder.path)
        return summary

    def _predict(self, split: str) -> Predictions:
        config = self.resolved.config
        is_sigmoid = config.objective.name == "sigmoid" or self.data.is_multi_label
        return predict_examples(
            self.model,
            self.data.splits[split],
            preprocessing=config.preprocessing,
            batch_size=config.evaluation.batch_size,
            device=self.machine.device,
            loss="sigmoid" if is_sigmoid else "softmax",
            workers=config.data.workers,
            ranks=self.machine.ranks,
        )

    def _write_model(self) -> None:
        with atomic.new_folder(self.folder.model) as aside:
            write_model_files(
                self.model,
                aside,
                preprocessing=self.resolved.config.preprocessing,
                classes=self.data.classes,
                provenance=dict(self.provenance),
            )

    def _summarise(self, split: str | None, predictions: Predictions | None) -> dict[str, Any]:
        config, train = self.resolved.config, self.data.splits["train"]
        summary: dict[str, Any] = {
            "accuracy": None,
            "accuracy_interval": None,
            "loss": None,
            "split": split,
            "num_examples": 0,
            "num_skipped": 0,
        }
        if split and predictions:
            summary |= summarise(predictions)
            summary["num_skipped"] += len(self.data.problems(split))
            if len(predictions.labels):
                summary |= self._controls(split, predictions)
        per_epoch = steps_per_epoch(len(train), config.train.batch_size)
        return summary | {
            "model": config.model.name if config.model else type(self.model).__name__,
            "data": self.title,
            "precision": "float32",
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "recipe": self.resolved.recipe.name,
            "recipe_reason": self.resolved.recipe.reason,
            "steps": self.steps_done,
            "epochs": self.steps_done / per_epoch,
            **({"best_step": self.best.step} if self.best else {}),
            **({"fewshot": self.fewshot.scores(self.model)} if self.fewshot else {}),
        }

    def _controls(self, split: str, predictions: Predictions) -> dict[str, Any]:
        train, classes = self.data.splits["train"], self.data.classes
        return {
            **majority_control(train.labels, predictions.labels, classes),
            "pixel_accuracy": pixel_accuracy(
                train,
                self.data.splits[split],
                preprocessing=self.resolved.config.preprocessing,
                num_classes=len(classes),
            ),
        }

    def _write_predictions(self, split: str, predictions: Predictions) -> None:
        examples, path = self.data.splits[split], self.folder.path
        rows = [
            *prediction_rows(examples, predictions, self.data.classes),
            *({"path": item.name, "error": item.reason} for item in self.data.problems(split)),
        ]
        columns = ("path", "label", "class", "probability", "error")
        atomic.write_text(path / "test_predictions.csv", csv_text(rows, columns=columns))
        names = [examples.name(index) for index in predictions.indices.tolist()]
        np.savez_compressed(
            path / "test_predictions.npz",
            labels=predictions.labels,
            probabilities=predictions.probabilities,
            names=np.array(names, np.str_),
        )
        mistakes = confident_mistakes(
            self.model,
            examples,
            predictions,
            preprocessing=self.resolved.config.preprocessing,
            device=self.machine.device,
            classes=self.data.classes,
        )
        np.savez_compressed(path / "mistakes.npz", **mistakes)  # type: ignore[arg-type]
