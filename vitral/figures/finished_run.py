"""Reads the folder of a finished run, the only source of a report."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from vitral.errors import RequestError
from vitral.files.layout import RunFile

Record = dict[str, Any]
Arrays = dict[str, NDArray[Any]]
REQUIRED = ("num_examples",)
ACCURACY = "accuracy"
"""The metric of classifiers, whose reports have controls, classes and mistakes."""


@dataclass(frozen=True)
class FinishedRun:
    """The files of a run; missing files are empty, except the summary, which is required."""

    path: Path
    """The folder, as given by the caller."""
    summary: Record
    """Final figures: accuracy, interval, controls, denominators."""
    config: Record
    """Command, settings and their origins."""
    environment: Record
    """Versions of software, and the machine."""
    status: Record
    """State and times."""
    data_report: Record
    """Classes, splits, skipped files."""
    metrics: list[Record]
    """One row per measurement."""
    timings: list[Record]
    """One row per clock reading."""
    predictions: Arrays
    """`labels` (N,), or (N, K) of 0 and 1 for multi-label data; `probabilities` (N, K), `names`
    (N,)."""
    mistakes: Arrays
    """`images` (M, h, w, C) uint8, `attention` (M, gh, gw), and names and classes as text."""

    @property
    def metric(self) -> str:
        """The primary metric; older runs, all of classifiers, do not state it."""
        return str(self.summary.get("metric", ACCURACY))

    @property
    def has_classes(self) -> bool:
        """Whether there are class predictions to report, or should be."""
        return bool(self.predictions) or self.is_classification

    @property
    def is_classification(self) -> bool:
        """Whether the score is that of a classifier, even if no image was scored."""
        is_known = self.summary.get(f"{ACCURACY}_interval") is not None
        return self.metric == ACCURACY and (is_known or not self.summary["num_examples"])

    @property
    def is_multi_label(self) -> bool:
        """Whether the data is multi-label."""
        return bool(self.predictions) and self.predictions["labels"].ndim == 2

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the model's outputs; indices if there are no names."""
        names = [str(name) for name in self.data_report.get("classes") or []]
        if not self.predictions:
            return names
        num_classes = self.predictions["probabilities"].shape[1]
        if names and len(names) != num_classes:
            raise RequestError(
                f"{self.path}: data_report.json has {len(names)} classes, test_predictions.npz "
                f"has probabilities of {num_classes}: both must come from the same run"
            )
        return names or [str(index) for index in range(num_classes)]


def read_run_folder(path: Path) -> FinishedRun:
    """Read the files of a run folder.

    Raises:
        RequestError: there is no `summary.json`, it lacks the result, or a file can't be read.
    """
    summary = _read(path / RunFile.SUMMARY, _parse_json, default=None)
    if summary is None:
        raise RequestError(
            f"{path} has no summary.json, so it is not the folder of a finished run: "
            "name a run folder, or give the run's command again to finish it"
        )
    metric = summary.get("metric", ACCURACY)
    stated = [f"{ACCURACY}_interval"] if f"majority_{ACCURACY}" in summary else []
    of_classes = [metric, *stated] if metric == ACCURACY else []
    needed = [*REQUIRED, *(of_classes if summary.get("num_examples") else [])]
    absent = [key for key in needed if summary.get(key) is None]
    if absent:
        raise RequestError(
            f"{path / 'summary.json'} has no {', '.join(absent)}: give the run's command again"
        )
    return FinishedRun(
        path=path,
        summary=summary,
        config=_read(path / RunFile.CONFIG, _parse_yaml, default={}),
        environment=_read(path / RunFile.ENVIRONMENT, _parse_json, default={}),
        status=_read(path / RunFile.STATUS, _parse_json, default={}),
        data_report=_read(path / RunFile.DATA_REPORT, _parse_json, default={}),
        metrics=_read(path / RunFile.METRICS, _parse_rows, default=[]),
        timings=_read(path / RunFile.TIMINGS, _parse_rows, default=[]),
        predictions=_read(path / RunFile.PROBABILITIES, _parse_arrays, default={}),
        mistakes=_read(path / RunFile.MISTAKES, _parse_arrays, default={}),
    )


def _read(path: Path, parse: Callable[[Path], Any], *, default: Any) -> Any:
    """Parse one file of the folder, or return the default if it does not exist."""
    try:
        return parse(path)
    except FileNotFoundError:
        return default
    except (ValueError, OSError, yaml.YAMLError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise RequestError(
            f"{path} can't be read ({reason}): restore the file, or give the run's command again"
        ) from error


def _parse_json(path: Path) -> Record:
    content = json.loads(_text(path))
    if not isinstance(content, dict):
        raise ValueError("it must hold one JSON object")
    return content


def _parse_yaml(path: Path) -> Record:
    content = yaml.safe_load(_text(path))
    if not isinstance(content, dict):
        raise ValueError("it must hold one YAML mapping")
    return content


def _text(path: Path) -> str:
    """Return a file's text, with replacement characters for invalid UTF-8."""
    return path.read_text(encoding="utf-8", errors="replace")


def _parse_rows(path: Path) -> list[Record]:
    return [json.loads(line) for line in _text(path).splitlines() if line]


def _parse_arrays(path: Path) -> Arrays:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
