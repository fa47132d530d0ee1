"""Runs on each of VTAB's tasks, their stored results, and the means over them."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitral.config.paper_results import VTAB, VTAB_GROUPS, vtab_means
from vitral.config.run import CROP_OF_SETTING
from vitral.config.settings import Settings
from vitral.data.dataset import SPLITS, ImageDataset
from vitral.data.datasets.names import THOUSAND, VTAB_PREFIX
from vitral.data.datasets.table import TASKS
from vitral.data.splits import find_overlap, without_split
from vitral.errors import DataError, RequestError
from vitral.evaluate.arrays import Features
from vitral.evaluate.features import extract_features
from vitral.figures.paper_comparison import flat_settings
from vitral.files import atomic
from vitral.files.layout import RunFile, cache_dir
from vitral.files.results import ResultRow, row_from_record, utc_now
from vitral.models.model import Model
from vitral.models.weights.load import change_model
from vitral.runtime.device import choose_precision
from vitral.statistics import wilson_interval
from vitral.training.context import TrainContext, open_training_data
from vitral.training.train import RunRequest
from vitral.transfer.pretrained import PretrainedModel, run_row
from vitral.transfer.probe_first import probe_seen_classes
from vitral.transfer.protocols import Candidate, Protocol
from vitral.transfer.series import Outcome, Series

SETTINGS_OF_CHANGE = {"flip": ("augment.flip",), "crop": ("augment.crop", *CROP_OF_SETTING)}
"""Settings that are ignored for a task for which the augmentation is off."""


@dataclass(frozen=True)
class TaskRuns:
    """Runs the same procedure on every task."""

    source: PretrainedModel
    context: TrainContext
    settings: Settings
    """Settings by path, for every run."""
    names: Sequence[str]
    """Of the tasks."""
    command: str
    dropout: float = 0.0

    def compare(self, candidates: Sequence[Candidate], folder: Path) -> dict[str, dict[str, float]]:
        """Return the accuracy on the 200 validation images, by candidate and task.

        Models are trained on the other 800 images; the test images are removed first.
        """
        scores: dict[str, dict[str, float]] = {candidate.name: {} for candidate in candidates}
        for name, images in self._opened(thousand=False):
            seen = without_split(images, "test")
            for candidate in candidates:
                path = folder / candidate.name / name
                scores[candidate.name][name] = self._validated(name, candidate, seen, path)
        return scores

    def tune(self, candidate: Candidate, folder: Path) -> list[ResultRow]:
        """Train on each task's 1,000 images, and score its test images."""
        return [
            self._tuned(name, candidate, images, folder / name)
            for name, images in self._opened(thousand=True)
        ]

    def probe(self, folder: Path, *, image_size: int | tuple[int, int] | None) -> list[ResultRow]:
        """Fit a probe to each task's frozen features, and score its test images."""
        model = self.source.model
        if image_size is not None:
            model = change_model(model, image_size=image_size)
        model.to(self.context.device)
        return [
            self._probed(name, model, images, folder / name)
            for name, images in self._opened(thousand=False)
        ]

    def _opened(self, *, thousand: bool) -> Iterator[tuple[str, ImageDataset]]:
        """Open one task after the other."""
        for number, name in enumerate(self.names, start=1):
            self.context.view.log(f"task {number} of {len(self.names)}: {name}")
            images = open_training_data(
                _data(name, thousand=thousand),
                self.context,
                settings=self.settings,
                channels=self.source.model.config.in_channels,
            )
            for split in SPLITS:
                if split not in images.splits and not (thousand and split == "validation"):
                    raise DataError(f"{VTAB_PREFIX}{name} has no {split} image that can be used")
            if found := find_overlap(images):
                self.context.view.log(f"note: {len(found):,} test images are training images too")
            yield name, images

    def _validated(
        self, name: str, candidate: Candidate, images: ImageDataset, path: Path
    ) -> float:
        def find() -> dict[str, Any]:
            return {"accuracy": self._run(name, candidate, images, path).summary["accuracy"]}

        found = self._once(path, images, find)
        self._remove(path / RunFile.CHECKPOINTS, path / RunFile.MODEL)
        return float(found["accuracy"])

    def _tuned(
        self, name: str, candidate: Candidate, images: ImageDataset, path: Path
    ) -> ResultRow:
        def find() -> dict[str, Any]:
            run = self._run(name, candidate, images, path)
            row = run_row(self.source, run.path, run.summary, protocol="vtab")
            assert row is not None, "test images are there"
            return dataclasses.asdict(row)

        row = row_from_record(self._once(path, images, find))
        self._remove(path / RunFile.CHECKPOINTS)
        return row

    def _probed(self, name: str, model: Model, images: ImageDataset, path: Path) -> ResultRow:
        def find() -> dict[str, Any]:
            found = [self._features(model, images, split) for split in SPLITS]
            train, validation, test = ((features.values, features.labels) for features in found)
            right, l2 = probe_seen_classes(train, validation, test)
            row = self._probe_row(name, model, right, len(test[1]), settings={"l2": l2})
            return dataclasses.asdict(row)

        return row_from_record(self._once(path, images, find))

    def _run(self, name: str, candidate: Candidate, images: ImageDataset, path: Path) -> Outcome:
        """Train and score, or resume the run."""
        protocol = Protocol("vtab", (candidate,), dev_share=0.0, dropout=self.dropout)
        off = {
            setting
            for change in images.listing.disabled_augmentations
            for setting in SETTINGS_OF_CHANGE[change]
        }
        settings = self.settings.without(*off)
        source = _data(name, thousand="validation" not in images.splits)
        settings |= Settings.of({"data.source": source}, "option")
        title = f"{VTAB_PREFIX}{name}"
        request = RunRequest(None, title=title, command=self.command, settings=settings)
        series = Series(protocol, self.source, images, request, self.context)
        return series.run(candidate, images, path, seed=int(settings.get("train.seed", 0)))

    def _features(self, model: Model, images: ImageDataset, split: str) -> Features:
        return extract_features(
            model,
            images.splits[split],
            preprocessing=model.preprocessing,
            device=self.context.device,
            precision=self._precision(model),
            cache=cache_dir() / "features",
        )

    def _precision(self, model: Model) -> torch.dtype:
        name = self.settings.get("train.precision", "float32")
        return choose_precision(name, device=self.context.device, width=model.config.feature_dim)

    def _probe_row(
        self, name: str, model: Model, right: int, count: int, *, settings: dict[str, Any]
    ) -> ResultRow:
        self.context.view.log(f"{name}: {100 * right / count:.1f} %")
        ready = dataclasses.asdict(model.preprocessing)
        return ResultRow(
            model=model.config.name,
            weights=self.source.weights,
            data=f"{VTAB_PREFIX}{name}",
            split="test",
            protocol="vtab/linear",
            settings={**settings, "preprocessing": ready},
            metric="accuracy",
            value=right / count,
            num_examples=count,
            interval=wilson_interval(right, count),
            interval_over="images",
            seed=0,
            precision=str(self._precision(model)).removeprefix("torch."),
            path=self.source.path,
            pretraining=self.source.pretraining,
        )

    def _once(
        self, path: Path, images: ImageDataset, find: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return the stored result for the same images, else compute and store it."""
        file, data = path / "outcome.json", images.fingerprint()
        stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        stored = self.context.ranks.broadcast_object(stored)
        if stored is None:
            stored = {"data_fingerprint": data, "found": find()}

            def write() -> None:
                path.mkdir(parents=True, exist_ok=True)
                atomic.write_json(file, stored)

            self.context.ranks.run_on_main(write)
        if stored["data_fingerprint"] != data:
            raise RequestError(
                f"{path} was found on other images than {images.source} has now: choose another "
                "--output"
            )
        found: dict[str, Any] = stored["found"]
        return found

    def _remove(self, *folders: Path) -> None:
        """Remove folders that a finished run does not need: those of 19 tasks fill disks."""

        def remove() -> None:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)

        self.context.ranks.run_on_main(remove)


def _data(name: str, *, thousand: bool) -> str:
    return f"{VTAB_PREFIX}{name}{THOUSAND if thousand else ''}"


def mean_rows(rows: Sequence[ResultRow], folder: Path) -> list[ResultRow]:
    """Return the rows of the means over complete groups of tasks, and over all 19.

    Args:
        rows: one per task.
        folder: of all tasks.
    """
    means = vtab_means({row.data: row.value for row in rows})
    return [_mean_row(rows, group, value, folder) for group, value in means.items()]


def _mean_row(rows: Sequence[ResultRow], group: str, value: float, folder: Path) -> ResultRow:
    tasks = VTAB_GROUPS.get(group, tuple(TASKS))
    of_group = [row for row in rows if row.data.removeprefix(VTAB_PREFIX) in tasks]
    return dataclasses.replace(
        of_group[0],
        data=f"{VTAB_PREFIX}{group}" if group in VTAB_GROUPS else VTAB,
        settings=_shared_settings(of_group),
        value=value,
        num_examples=sum(row.num_examples for row in of_group),
        interval=None,
        interval_over=None,
        controls={},
        time=utc_now(),
        path=str(folder),
    )


def _shared_settings(rows: Sequence[ResultRow]) -> dict[str, Any]:
    """Return the settings that are equal in all rows, by path."""
    first, *rest = (flat_settings(row.settings) for row in rows)
    return {
        path: value
        for path, value in first.items()
        if all(path in other and other[path] == value for other in rest)
    }
