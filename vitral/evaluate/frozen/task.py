"""The parts of a score of frozen features: a task, a model, and the rows of results."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vitral.config.checks import check_choice, check_positive
from vitral.config.preprocessing import Preprocessing, change_preprocessing, describe_change
from vitral.config.run import DataSettings
from vitral.data.dataset import ImageDataset, open_dataset
from vitral.data.datasets.names import data_name, name_of
from vitral.data.examples import Examples
from vitral.data.splits import all_for_training, check_overlap, find_overlap
from vitral.errors import DataError, RequestError
from vitral.evaluate import forward
from vitral.evaluate.arrays import Features
from vitral.evaluate.features import extract_features
from vitral.files.layout import cache_dir
from vitral.files.results import ResultRow
from vitral.models.model import Model
from vitral.models.weights.provenance import training_data_of, weights_hash

SCORED_SPLITS = ("test", "validation")
Report = Callable[[int, int], None]
"""Called with the number of items done and the total."""


@dataclass(frozen=True)
class FrozenTask:
    """Images to learn from and images to score on, with the classes of the data."""

    name: str
    """Short, for rows."""
    published: str | None
    """Name of a known data set; None: the user's own data."""
    source: str
    classes: tuple[str, ...]
    train: Examples
    validation: Examples | None
    """Images to choose settings on; None: there are none, or they are not used."""
    test: Examples
    split: str
    """The name of the split that `test` is."""
    num_damaged: int
    """Images of that split that were found unreadable before scoring."""
    notes: tuple[str, ...]
    """Remarks on the data."""


def open_task(
    data: Any,
    *,
    channels: int,
    directory: str | Path | None = None,
    split: str | None = None,
    with_validation: bool = False,
    report_progress: Report | None = None,
) -> FrozenTask:
    """Open data for scores of frozen features.

    Args:
        data: as for training; without splits it is split by content.
        channels: of the model.
        directory: where the files of a named data set are.
        split: the split to score, "test" or "validation"; None: the first of them that exists.
        with_validation: whether settings are chosen on validation images. Until then, these are
            never learnt from.
        report_progress: of the images that are surveyed.

    Raises:
        RequestError: nothing is there, or no split to learn from or to score.
        DataError: an image has several labels, or what is scored would be learnt from.
    """
    if split is not None:
        check_choice(SCORED_SPLITS, split=split)
    settings = DataSettings(source=str(data), directory=str(directory or ""), validation_share=0.0)
    dataset = open_dataset(
        data, channels=channels, settings=settings, report_progress=report_progress
    )
    if dataset.is_multi_label:
        raise DataError(
            f"{dataset.source} has several labels an image, which scores of frozen features are "
            "not for: give data of one class an image"
        )
    scored = _scored_split(dataset, split)
    validation = dataset.splits.get("validation") if with_validation else None
    if scored == "validation":
        validation = None
    checked = dataset if validation is None else all_for_training(dataset)
    published = name_of(data)
    notes = [*dataset.notes, *_overlap_notes(checked, split=scored, is_published=bool(published))]
    return FrozenTask(
        name=data_name(data),
        published=published,
        source=dataset.source,
        classes=dataset.classes,
        train=dataset.splits["train"],
        validation=validation,
        test=dataset.splits[scored],
        split=scored,
        num_damaged=len(dataset.problems(scored)),
        notes=tuple(notes),
    )


def _scored_split(images: ImageDataset, split: str | None) -> str:
    present = [name for name in SCORED_SPLITS if name in images.splits]
    scored = split or next(iter(present), None)
    if "train" not in images.splits or scored not in images.splits:
        lacking = "train" if "train" not in images.splits else split or "test or validation"
        raise RequestError(
            f"{images.source} has {', '.join(images.splits)} images but no {lacking} images: "
            "classes are learnt from train and scored on test or validation; give data that has "
            "both, or data without any splits, which is then split by content"
        )
    return scored


def _overlap_notes(images: ImageDataset, *, split: str, is_published: bool) -> list[str]:
    """Raise if training and scored images overlap; for published data sets, only report it."""
    if not is_published:
        check_overlap(images, split=split)
        return []
    found = len(find_overlap(images, split=split))
    if not found:
        return []
    return [
        f"{found:,} of {len(images.splits[split]):,} {split} images are images to learn from too, "
        "by content; the splits stay as they were published"
    ]


@dataclass(frozen=True)
class FrozenModel:
    """A model whose features are scored, and the settings for computing them."""

    model: Model
    path: str
    """As given; empty: not from a file."""
    device: torch.device
    precision: torch.dtype = torch.float32
    batch_size: int = 64
    cache: Path | None = None
    """Folder of cached features; None: no cache."""
    workers: int = -1
    changes: Mapping[str, Any] | None = None
    """Fields of the protocol's preprocessing to override."""
    report_progress: Report | None = None

    def features(self, examples: Examples, preprocessing: Preprocessing) -> Features:
        """Extract the features of examples.

        Raises:
            DataError: no image could be read.
            ModelFileError: they are not finite.
        """
        return extract_features(
            self.model,
            examples,
            preprocessing=preprocessing,
            batch_size=self.batch_size,
            device=self.device,
            precision=self.precision,
            workers=self.workers,
            report_progress=self.report_progress,
            cache=self.cache,
        )

    def changed(self, preprocessing: Preprocessing) -> tuple[Preprocessing, list[str]]:
        """Return a protocol's preprocessing with `changes` applied, and notes on them."""
        changed = change_preprocessing(preprocessing, self.changes or {})
        is_same = changed == self.model.preprocessing
        return changed, [] if is_same else [describe_change(self.model.preprocessing, changed)]

    def with_model(self, model: Model) -> "FrozenModel":
        """Return a copy for another model."""
        return replace(self, model=model.to(self.device).eval())


def open_model(
    model: str | Path | Model,
    *,
    device: str = "auto",
    precision: str = "float32",
    format: str | None = None,
    batch_size: int = 64,
    cache: bool = True,
    changes: Mapping[str, Any] | None = None,
    report_progress: Report | None = None,
) -> FrozenModel:
    """Load a model for scores of its features; a head is ignored.

    Args:
        model: a run folder, a model folder or file, a name of the catalogue, or a loaded model.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "float32" or "bfloat16".
        format: format of the model's file, if it can't be detected from the content.
        batch_size: affects scores only by rounding.
        cache: whether to cache features on disk.
        changes: fields of the protocol's preprocessing to override.
        report_progress: of the images whose features are extracted.

    Raises:
        RequestError: nothing is there, it has no features, or a bad value.
        ModelFileError: it can't be used.
    """
    check_positive(batch_size=batch_size)
    opened = forward.load_ready(model, device=device, precision=precision, format=format)
    return FrozenModel(
        opened.model,
        path=str(model) if isinstance(model, str | Path) else "",
        device=opened.device,
        precision=opened.precision,
        batch_size=batch_size,
        cache=cache_dir() / "features" if cache else None,
        changes=changes,
        report_progress=report_progress,
    )


@dataclass(frozen=True)
class FrozenResult:
    """Result of a protocol."""

    rows: tuple[ResultRow, ...]
    num_skipped: int
    """Images of the scored split that could not be read."""
    notes: tuple[str, ...]
    """Remarks on the result; warnings begin with that word."""
    loss: float | None = None
    """Mean cross-entropy in nats, where the protocol gives probabilities."""


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of one protocol on one task, with the fields they share."""

    shared: Mapping[str, Any]
    settings: Mapping[str, Any]

    def row(self, value: float, *, settings: Mapping[str, Any], **fields: Any) -> ResultRow:
        """Return the row of an accuracy; `settings` are those in which the rows differ."""
        merged = {**self.settings, **settings}
        return ResultRow(**self.shared, metric="accuracy", value=value, settings=merged, **fields)


def row_maker(
    frozen: FrozenModel,
    task: FrozenTask,
    *,
    protocol: str,
    preprocessing: Preprocessing,
    settings: Mapping[str, Any],
) -> RowMaker:
    """Hash the weights once, and collect the rows' fields of model, task and protocol."""
    model = frozen.model
    shared = {
        "model": model.config.name,
        "weights": weights_hash(model),
        "data": task.name,
        "split": task.split,
        "protocol": protocol,
        "precision": str(frozen.precision).removeprefix("torch."),
        "path": frozen.path,
        "pretraining": training_data_of(model, frozen.path),
    }
    return RowMaker(
        shared,
        {
            **settings,
            "num_classes": len(task.classes),
            "preprocessing": dataclasses.asdict(preprocessing),
        },
    )
