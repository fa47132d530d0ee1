"""Accuracy of a model on a data set."""

import csv
import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitral.config.checks import check_choice, check_positive
from vitral.config.preprocessing import describe_change
from vitral.config.run import PRECISIONS, DataSettings
from vitral.data.dataset import SPLITS, ImageDataset, open_dataset
from vitral.data.datasets.names import data_name
from vitral.data.examples import Examples
from vitral.data.splits import describe_splits
from vitral.errors import DataError, RequestError
from vitral.evaluate.classification import predict_examples
from vitral.evaluate.controls import majority_control
from vitral.evaluate.forward import load_ready
from vitral.evaluate.score import Predictions, prediction_rows, summarise
from vitral.files.layout import RunFile
from vitral.files.results import ResultRow
from vitral.models.model import check_classifier
from vitral.models.weights.folder import find_model_folder, read_config
from vitral.models.weights.provenance import training_data_of, weights_hash


@dataclass(frozen=True)
class Evaluation:
    """A score and the rows behind it."""

    summary: dict[str, Any]
    """As in `summary.json`."""
    examples: Examples
    predictions: Predictions
    classes: tuple[str, ...]
    unreadable: list[tuple[str, str]]
    """Name and reason of images that were found damaged before scoring."""
    notes: list[str] = field(default_factory=list)
    """Remarks on the data."""
    any_label: bool = False
    """Whether any of an image's classes is a right answer."""
    row: ResultRow | None = None
    """The score as a row of results."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one row per image: `path`, `label`, `class`, `probability`, `error`."""
        yield from prediction_rows(
            self.examples, self.predictions, self.classes, any_label=self.any_label
        )
        for name, reason in self.unreadable:
            yield {"path": name, "error": reason}


def evaluate(
    model: str | Path,
    data: Any,
    *,
    directory: str | Path | None = None,
    split: str | None = None,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "float32",
    format: str | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    report_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score a model on a split of a data set, every image once.

    Args:
        model: a run folder, a model folder or file.
        data: as for training. For the data that the model was trained on, the split of the run is
            scored; for other data without splits, every image.
        directory: where the files of a named data set are.
        split: "train", "validation" or "test"; None: test if there are splits.
        batch_size: affects scores only by rounding.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "float32" or "bfloat16".
        format: format of the model's file, if it can't be detected from the content.
        preprocessing: fields of the model's preprocessing to override; the notes then state both.
            None: the model's own.
        report_progress: called with the number of images done and the total.

    Raises:
        RequestError: nothing is there, or the data has no such split.
        DataError: the data can't be used, or has a class that the model does not know.
        ModelFileError: the model can't be used, or has no head.
    """
    if split is not None and split not in SPLITS:
        raise RequestError(f"split={split!r} is not known: use one of {', '.join(SPLITS)}")
    check_positive(batch_size=batch_size)
    check_choice(PRECISIONS, precision=precision)
    path = Path(model)
    opened = load_ready(
        path,
        device=device,
        precision=precision,
        format=format,
        preprocessing=preprocessing,
        check=check_classifier,
    )
    network, config = opened.model, opened.model.config
    images = open_dataset(
        data,
        channels=config.in_channels,
        classes=network.classes or tuple(str(number) for number in range(config.num_classes)),
        settings=DataSettings(
            source=str(data), directory=str(directory or ""), validation_share=0.0
        ),
    )
    any_label = images.listing.scoring == "any"
    if images.is_multi_label and network.output != "sigmoid" and not any_label:
        raise DataError(
            f"{images.source} has several labels an image, the model was trained for one: give "
            "data of one label, or a model trained on such data"
        )
    notes = list(images.notes)
    if opened.preprocessing != network.preprocessing:
        notes.append(describe_change(network.preprocessing, opened.preprocessing))
    scored, examples, problems = _choose(images, split, stored=_stored_splits(path, images))
    predictions = predict_examples(
        network,
        examples,
        preprocessing=opened.preprocessing,
        batch_size=batch_size,
        device=opened.device,
        precision=opened.precision,
        loss=network.output,
        report_progress=report_progress,
    )
    if not len(predictions.labels):
        raise DataError(f"no image of {images.source} could be read")
    summary = summarise(predictions, any_label=any_label)
    summary["num_skipped"] += len(problems)
    summary |= {
        "split": scored,
        **majority_control(
            predictions.labels, predictions.labels, images.classes, any_label=any_label
        ),
        "model": config.name,
        "data": data_name(data),
        "precision": str(opened.precision).removeprefix("torch."),
    }
    row = ResultRow(
        model=config.name,
        weights=weights_hash(network),
        data=summary["data"],
        split=scored,
        protocol="evaluate",
        settings={
            "preprocessing": dataclasses.asdict(opened.preprocessing),
            "data_fingerprint": images.fingerprint(),
        },
        metric="accuracy",
        value=summary["accuracy"],
        num_examples=summary["num_examples"],
        interval=tuple(summary["accuracy_interval"]),
        interval_over="images",
        controls={"majority": summary["majority_accuracy"]},
        seed=0,
        precision=summary["precision"],
        path=str(path),
        pretraining=training_data_of(network, str(path)),
    )
    return Evaluation(
        summary, examples, predictions, images.classes, problems, notes, any_label, row
    )


def _choose(
    images: ImageDataset, split: str | None, *, stored: dict[str, str]
) -> tuple[str, Examples, list[tuple[str, str]]]:
    """Return the name of the scored split, its examples, and its damaged images."""
    damaged = [(item.name, item.reason) for _, item in images.unreadable]
    if stored:
        wanted = split or "test"
        everything = images.everything()
        inside = [stored.get(everything.name(i)) == wanted for i in range(len(everything))]
        if not any(inside):
            raise RequestError(
                f"the run has no {wanted} split of {images.source}: use another --split"
            )
        problems = [(name, reason) for name, reason in damaged if stored.get(name) == wanted]
        return wanted, everything.select(np.flatnonzero(inside)), problems
    if not images.has_own_splits:
        if split:
            raise RequestError(
                f"{images.source} has no splits: leave --split out to score every image"
            )
        return "all", images.everything(), damaged
    wanted = split or ("test" if "test" in images.splits else "validation")
    if wanted not in images.splits:
        raise RequestError(
            f"{images.source} has no {wanted} split: it has {', '.join(images.splits)}"
        )
    problems = [(item.name, item.reason) for item in images.problems(wanted)]
    return wanted, images.splits[wanted], problems


def _stored_splits(model_path: Path, images: ImageDataset) -> dict[str, str]:
    """Return the split of each file in the model's run, if the data is that of the run.

    Raises:
        RequestError: it is, but the data has changed and the run's list of splits is missing.
    """
    if not model_path.is_dir():
        return {}
    folder = find_model_folder(model_path)
    if folder is None:
        return {}
    data = read_config(folder).get("data") or {}
    is_same_data = images.fingerprint() == data.get("fingerprint")
    is_same_source = images.source == data.get("source") and Path(images.source).exists()
    if not is_same_data and not is_same_source:
        return {}
    for candidate in (folder, *folder.resolve().parents[:3]):
        if (candidate / RunFile.SPLITS).exists():
            text = (candidate / RunFile.SPLITS).read_bytes().decode(errors="surrogateescape")
            return {row["path"]: row["split"] for row in csv.DictReader(io.StringIO(text))}
    if not is_same_data:
        raise RequestError(
            f"the model was trained on {images.source}, which has changed since, and its run's "
            "splits.csv is gone: evaluate from the run folder, or on other data"
        )
    if data.get("split") != describe_splits(images.listing, DataSettings(source="")):
        raise RequestError(
            f"the model was trained on {images.source}, {data.get('split')}, and its run's "
            "splits.csv is gone: evaluate from the run folder, or on other data"
        )
    # Contents and splits are those of the run, except for what it held out for validation.
    names = images.everything().store.names
    return {names[number]: str(split) for number, split in enumerate(images.declared_splits)}
