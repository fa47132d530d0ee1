"""Rows of results from finished runs."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vitral.files.results import ResultRow, keep_results, read_results, utc_now
from vitral.transfer.start import Source


def run_row(
    source: Source,
    run: Path,
    summary: Mapping[str, Any],
    *,
    protocol: str,
    further: Mapping[str, Any] | None = None,
) -> ResultRow | None:
    """Return the row of a finished run's score; None where nothing was scored.

    Args:
        source: the weights that it started from.
        run: its folder.
        summary: of it.
        protocol: its name.
        further: settings of the protocol beside those of the run.
    """
    metric = summary.get("metric", "accuracy")  # older runs had no other
    if summary[metric] is None:
        return None
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    settings = config["settings"]
    facts = {"recipe": summary["recipe"], "data_fingerprint": config["data_fingerprint"]}
    controls = {
        "majority": summary.get("majority_accuracy"),
        "pixels": summary.get("pixel_accuracy"),
    }
    interval = summary.get(f"{metric}_interval")
    return ResultRow(
        model=source.model.config.name,
        weights=source.weights,
        data=summary["data"],
        split=summary["split"],
        protocol=protocol,
        settings={**facts, **(further or {}), **settings},
        metric=metric,
        value=summary[metric],
        num_examples=summary["num_examples"],
        interval=tuple(interval) if interval else None,
        interval_over="images" if interval else None,
        controls={name: value for name, value in controls.items() if value is not None},
        seed=settings["train"]["seed"],
        precision=summary["precision"],
        path=str(run),
        pretraining=source.pretraining,
    )


def mean_row(
    rows: Sequence[ResultRow], path: Path, mean: tuple[float, float | None, float | None]
) -> ResultRow:
    """Return the row of a mean over seeds, with its interval over them."""
    value, low, high = mean
    settings = {**rows[0].settings}
    settings["train"] = {name: own for name, own in settings["train"].items() if name != "seed"}
    known = low is not None and high is not None
    return dataclasses.replace(
        rows[0],
        settings=settings,
        value=value,
        interval=(max(0.0, low), min(1.0, high)) if low is not None and high is not None else None,
        interval_over="seeds" if known else None,
        seed=tuple(row.seed for row in rows if isinstance(row.seed, int)),
        path=str(path),
        time=utc_now(),
    )


def append_new(results: Path, rows: Sequence[ResultRow]) -> None:
    """Append the rows that the file does not have yet: a finished run may be asked for again."""
    known = {_identity(row) for row in read_results(results)[0]}
    keep_results(results, [row for row in rows if _identity(row) not in known])


def _identity(row: ResultRow) -> tuple[Any, ...]:
    return (row.path, row.weights, row.protocol, row.data, row.split, str(row.seed), row.value)
