"""Rows of results: a score with all that is needed to read it, in one file for all models."""

import contextlib
import dataclasses
import datetime
import json
import logging
import math
import numbers
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitral.errors import RequestError
from vitral.files.atomic import sync
from vitral.files.rows import append_row, salvage_rows
from vitral.version import __version__

_log = logging.getLogger("vitral")
RESULTS_PATH = Path("runs") / "results.jsonl"
"""Where verbs append rows unless told otherwise, below the working directory."""
ENVIRONMENT_NAME = "VITRAL_RESULTS"
INTERVAL_OVER = ("images", "seeds")
NOT_SHARES = ("loss",)
"""Metrics that may be above 1."""
CONTROLS = ("pixels", "random_weights", "shuffled_labels", "majority", "chance")
_ROUNDING = 1e-9


def results_path() -> Path:
    """Return the file that rows are kept in: `$VITRAL_RESULTS`, else `runs/results.jsonl`."""
    return Path(os.environ.get(ENVIRONMENT_NAME) or RESULTS_PATH)


def utc_now() -> str:
    """Return the time in UTC as ISO 8601, such as `2026-11-26T03:57:17+00:00`."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One score of one model on one split, with the protocol that it was found by.

    It checks itself: shares lie in 0..1, the interval around the value. Sequences become tuples,
    and settings what JSON makes of them, so that a row equals itself read again.

    Raises:
        RequestError: a field that can't be.
    """

    model: str
    """Its name, such as `ViT-B/16`."""
    weights: str
    """Hash of the weights, 32 hex digits."""
    data: str
    """Name of the data set, such as `cifar10`."""
    split: str
    protocol: str
    """How the score came about, such as `finetune/paper`, `fewshot`, `probe`, `knn`, `vtab`."""
    metric: str
    value: float
    """A share 0..1; of `NOT_SHARES` any number from 0 on."""
    num_examples: int
    precision: str
    """Of the arithmetic, such as `float32`."""
    seed: int | tuple[int, ...]
    """Several for a mean."""
    settings: dict[str, Any] = field(default_factory=dict)
    """All settings of the protocol, preprocessing included."""
    interval: tuple[float, float] | None = None
    """Low and high; None: not known."""
    interval_over: str | None = None
    """What the interval is over: one of `INTERVAL_OVER`; None: there is no interval."""
    controls: dict[str, float] = field(default_factory=dict)
    """What is reached without the model, in the unit of `value`, by names of `CONTROLS`."""
    time: str = field(default_factory=utc_now)
    """UTC, ISO 8601."""
    vitral_version: str = __version__
    path: str = ""
    """Of the model or run, as it was given."""
    pretraining: str = ""
    """What the weights were trained on before; empty: not known."""

    def __post_init__(self) -> None:
        for name in _TEXTS:
            _check_text(name, getattr(self, name), empty=name in ("path", "pretraining"))
        if not re.fullmatch(r"[0-9a-f]{32}", self.weights):
            raise RequestError(f"weights={self.weights!r}: give the hash, 32 hex digits")
        self._set("num_examples", _whole("num_examples", self.num_examples, least=1))
        self._set("value", self._number("value", self.value))
        self._set("seed", _seeds(self.seed))
        self._set("settings", _plain(self.settings))
        self._set("interval", self._checked_interval())
        self._set("controls", self._checked_controls())
        parsed_time(self.time)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _number(self, name: str, value: Any) -> float:
        largest = math.inf if self.metric in NOT_SHARES else 1.0
        wanted = "0 or more" if self.metric in NOT_SHARES else f"a share, 0..1, for {self.metric}"
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not 0 <= value <= largest:
            raise RequestError(f"{name}={value!r}: give {wanted}")
        return float(value)

    def _checked_interval(self) -> tuple[float, float] | None:
        if (self.interval is None) != (self.interval_over is None):
            raise RequestError(
                f"interval={self.interval!r} with interval_over={self.interval_over!r}: give both, "
                "or neither"
            )
        if self.interval is None:
            return None
        if self.interval_over not in INTERVAL_OVER:
            raise RequestError(
                f"interval_over={self.interval_over!r}: use one of {', '.join(INTERVAL_OVER)}"
            )
        if not isinstance(self.interval, list | tuple) or len(self.interval) != 2:
            raise RequestError(f"interval={self.interval!r}: give low and high")
        low, high = (self._number("interval", end) for end in self.interval)
        if not low - _ROUNDING <= self.value <= high + _ROUNDING:
            raise RequestError(
                f"interval={self.interval!r} does not hold value={self.value}: give low and high "
                "around it"
            )
        return low, high

    def _checked_controls(self) -> dict[str, float]:
        if not isinstance(self.controls, Mapping):
            raise RequestError(f"controls={self.controls!r}: give values by name")
        unknown = [name for name in self.controls if name not in CONTROLS]
        if unknown:
            raise RequestError(f"controls has {unknown[0]!r}: use {', '.join(CONTROLS)}")
        return {
            name: self._number(f"controls[{name!r}]", value)
            for name, value in self.controls.items()
        }


_TEXTS = tuple(own.name for own in dataclasses.fields(ResultRow) if own.type is str)
_FIELDS = tuple(own.name for own in dataclasses.fields(ResultRow))


def append_result(path: Path, row: ResultRow) -> None:
    """Append a row to a file of results, which is made with its folder where it lacks.

    The row survives a kill, and rows that other processes append at the same time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        append_row(path, dataclasses.asdict(row))
    sync(path)


def keep_results(path: Path, rows: Iterable[ResultRow]) -> None:
    """Append rows; where that can't be done it is said, and no score is lost for it."""
    try:
        for row in rows:
            append_result(path, row)
    except OSError as error:
        _log.warning("note: rows of results can't be kept in %s: %s", path, error.strerror or error)


def read_results(path: Path) -> tuple[list[ResultRow], int]:
    """Return the rows of a file, oldest first, and how many lines are damaged and were left out.

    No file, no rows. The file stays as it is.
    """
    records, num_damaged = salvage_rows(path)
    rows: list[ResultRow] = []
    for record in records:
        try:
            rows.append(row_from_record(record))
        except RequestError:
            num_damaged += 1
    return sorted(rows, key=lambda row: parsed_time(row.time)), num_damaged


def row_from_record(record: Mapping[str, Any]) -> ResultRow:
    """Return the row that a line of the file holds; fields of later versions are left out.

    Raises:
        RequestError: a field is missing, or can't be.
    """
    missing = [name for name in _FIELDS if name not in record]
    if missing:
        raise RequestError(f"a row of results lacks {missing[0]!r}: it needs {', '.join(_FIELDS)}")
    return ResultRow(**{name: record[name] for name in _FIELDS})


def parsed_time(text: str) -> datetime.datetime:
    """Return a row's time.

    Raises:
        RequestError: it is no time in UTC.
    """
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.utcoffset() != datetime.timedelta(0):
        raise RequestError(f"time={text!r}: give UTC as ISO 8601, such as {utc_now()}")
    return time


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from appending meanwhile."""
    with path.open("ab") as file:
        try:
            import fcntl
        except ImportError:  # Windows has none; there nothing is locked
            yield
            return
        # Some network drives have no locks: a row is one write all the same.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_text(name: str, value: Any, *, empty: bool) -> None:
    if not isinstance(value, str) or not (value or empty):
        raise RequestError(f"{name}={value!r}: give text")


def _whole(name: str, value: Any, *, least: int) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise RequestError(f"{name}={value!r}: give a whole number, {least} or more")
    return int(value)


def _seeds(seed: Any) -> int | tuple[int, ...]:
    if not isinstance(seed, list | tuple):
        return _whole("seed", seed, least=0)
    if not seed:
        raise RequestError("seed=[]: give a seed, or those that the mean is over")
    return tuple(_whole("seed", one, least=0) for one in seed)


def _plain(settings: Any) -> dict[str, Any]:
    """Return settings as JSON gives them back."""
    if not isinstance(settings, Mapping):
        raise RequestError(f"settings={settings!r}: give values by name")
    try:
        return json.loads(json.dumps(dict(settings), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RequestError(f"settings={settings!r} can't be written as JSON: {error}") from None
