"""Rows of results: scores with their full context, in one file for all models."""

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
from vitral.files.atomic import lock, sync
from vitral.files.rows import append_row, salvage_rows
from vitral.version import __version__

_log = logging.getLogger("vitral")
RESULTS_PATH = Path("runs") / "results.jsonl"
"""Default file that commands append rows to, below the working directory."""
ENVIRONMENT_NAME = "VITRAL_RESULTS"
INTERVAL_OVER = ("images", "seeds")
NOT_SHARES = ("loss",)
"""Metrics that can exceed 1."""
CONTROLS = ("pixels", "random_weights", "shuffled_labels", "majority", "chance")
_ROUNDING = 1e-9


def results_path() -> Path:
    """Return the file of rows: `$VITRAL_RESULTS`, else `runs/results.jsonl`."""
    return Path(os.environ.get(ENVIRONMENT_NAME) or RESULTS_PATH)


def utc_now() -> str:
    """Return the time in UTC as ISO 8601, such as `2026-11-26T03:57:17+00:00`."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One score of one model on one split, with its protocol.

    Fields are validated: shares are in 0..1, the interval contains the value. Sequences are
    converted to tuples, and settings to what JSON returns, so that a row equals itself after a
    round trip.

    Raises:
        RequestError: an invalid field.
    """

    model: str
    """Name, such as `ViT-B/16`."""
    weights: str
    """Hash of the weights, 32 hex digits."""
    data: str
    """Name of the data set, such as `cifar10`."""
    split: str
    protocol: str
    """How the score was obtained, such as `finetune/paper`, `fewshot`, `probe`, `knn`, `vtab`."""
    metric: str
    value: float
    """A share 0..1; for `NOT_SHARES` any number from 0 on."""
    num_examples: int
    precision: str
    """Of the computation, such as `float32`."""
    seed: int | tuple[int, ...]
    """For a mean, several."""
    settings: dict[str, Any] = field(default_factory=dict)
    """All settings of the protocol, including preprocessing."""
    interval: tuple[float, float] | None = None
    """Low and high; None: not known."""
    interval_over: str | None = None
    """What the interval is over: one of `INTERVAL_OVER`; None: there is no interval."""
    controls: dict[str, float] = field(default_factory=dict)
    """Scores of baselines, in the unit of `value`, by names of `CONTROLS`."""
    time: str = field(default_factory=utc_now)
    """UTC, ISO 8601."""
    vitral_version: str = __version__
    path: str = ""
    """Of the model or run, as given."""
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


_TEXTS = tuple(item.name for item in dataclasses.fields(ResultRow) if item.type is str)
_FIELDS = tuple(item.name for item in dataclasses.fields(ResultRow))


def append_result(path: Path, row: ResultRow) -> None:
    """Append a row to a file of results, which is created with its folder if missing.

    The row survives if the process is killed, and concurrent appends of other processes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        append_row(path, dataclasses.asdict(row))
    sync(path)


def keep_results(path: Path, rows: Iterable[ResultRow]) -> None:
    """Append rows; if that fails, log a warning instead of raising."""
    try:
        for row in rows:
            append_result(path, row)
    except OSError as error:
        _log.warning("note: rows of results can't be kept in %s: %s", path, error.strerror or error)


def read_results(path: Path) -> tuple[list[ResultRow], int]:
    """Return the rows of a file, oldest first, and the number of damaged lines, which are skipped.

    If the file does not exist, there are no rows. The file is not changed.
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
    """Return the row of a parsed line of the file; unknown fields (of later versions) are ignored.

    Raises:
        RequestError: a field is missing or invalid.
    """
    missing = [name for name in _FIELDS if name not in record]
    if missing:
        raise RequestError(f"a row of results lacks {missing[0]!r}: it needs {', '.join(_FIELDS)}")
    return ResultRow(**{name: record[name] for name in _FIELDS})


def parsed_time(text: str) -> datetime.datetime:
    """Parse the time of a row.

    Raises:
        RequestError: it is not a time in UTC.
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
    """Lock a file against appends of other processes."""
    with path.open("ab") as file:
        # Some network drives have no locks; each row is a single write anyway.
        with contextlib.suppress(OSError):
            lock(file, wait=True)
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
    """Return settings after a round trip through JSON."""
    if not isinstance(settings, Mapping):
        raise RequestError(f"settings={settings!r}: give values by name")
    try:
        return json.loads(json.dumps(dict(settings), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RequestError(f"settings={settings!r} can't be written as JSON: {error}") from None
