"""Where Vitral's files lie, and names that every system can give to a file."""

import os
import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from vitral.errors import RequestError

_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices, with any ending."""


class RunFile(StrEnum):
    """The files of a run folder, by their names."""

    CONFIG = "config.yaml"
    """All settings, each with its origin."""
    ENVIRONMENT = "environment.json"
    STATUS = "status.json"
    METRICS = "metrics.jsonl"
    TABLE = "results.csv"
    """The metrics as a table."""
    TIMINGS = "timings.jsonl"
    LOG = "log.txt"
    DATA_REPORT = "data_report.json"
    SPLITS = "splits.csv"
    SKIPPED = "skipped.csv"
    CHECKPOINTS = "checkpoints"
    MODEL = "model"
    PARTS = "parts"
    """What an objective publishes beside the model."""
    SUMMARY = "summary.json"
    PREDICTIONS = "test_predictions.csv"
    PROBABILITIES = "test_predictions.npz"
    MISTAKES = "mistakes.npz"
    REPORT = "report.html"


def cache_dir() -> Path:
    """Return `$VITRAL_CACHE_DIR`, else `vitral` in the user's cache folder; it may not exist."""
    chosen = os.environ.get("VITRAL_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitral"


def check_file_names(names: Iterable[str], *, what: str) -> None:
    """Check that names become different files on every system.

    Args:
        names: of files or folders beside one another.
        what: whose names these are, for the error.

    Raises:
        RequestError: a name is not of letters, digits, `-` and `_`, is that of a device on Windows,
            or differs from another one by case alone, as macOS and Windows do not tell apart.
    """
    seen: dict[str, str] = {}
    for name in names:
        if not re.fullmatch(r"[\w-]+", name):
            raise RequestError(
                f"{what} has {name!r}: give names of letters and digits, which become folders"
            )
        if _DEVICES.fullmatch(name):
            raise RequestError(f"{what} has {name!r}, a device on Windows: give another name")
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise RequestError(
                f"{what} has {other!r} and {name!r}, which are one file on macOS and Windows: give "
                "names that differ by more than case"
            )
