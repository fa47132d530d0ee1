"""Rows of results as a table, each with its controls and the paper's figure beside it."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from vitral.figures.paper_beside import flat_settings, paper_beside, paper_cell
from vitral.figures.text_table import aligned, markdown, without_empty_columns
from vitral.files.results import NOT_SHARES, ResultRow, parsed_time
from vitral.files.rows import csv_text

FORMATS = ("table", "markdown", "csv")
HEADINGS = (
    "model", "data", "protocol", "settings", "metric", "value", "interval", "n", "seed",
    "controls", "paper", "time",
)  # fmt: skip
PAPER_COLUMNS = ("paper_value", "paper_source", "paper_pretraining")
SHOWN_SETTINGS = ("shots",)
"""Settings that say what was done: shown even where all rows have the same."""
MAX_SETTINGS = 4


def format_rows(
    rows: Sequence[ResultRow], *, format: str = "table", with_time: bool = False
) -> str:
    """Return rows as text: what a verb prints of its fresh rows, and `vitral results` of all.

    Percent have one decimal. Columns that are empty in every row are left out; of the settings
    those are shown in which rows of the same protocol and data differ.

    Args:
        rows: one or more.
        format: `table`, aligned for a terminal; `markdown`; `csv` has every field in full and the
            most alike published figure.
        with_time: show when each was measured.
    """
    if format == "csv":
        return csv_text(map(csv_record, rows), columns=csv_columns()).removesuffix("\n")
    cells = result_cells(rows, with_time=with_time)
    return markdown(cells) if format == "markdown" else aligned(cells)


def result_cells(rows: Sequence[ResultRow], *, with_time: bool = True) -> list[tuple[str, ...]]:
    """Return the headings, then a tuple of text for each row."""
    settings = setting_cells(rows)
    cells = [
        (
            label, f"{row.data} {row.split}", protocol_cell(row), own, row.metric,
            percent(row, row.value), interval_cell(row), f"{row.num_examples:,}", seed_cell(row),
            controls_cell(row), paper_cell(row), time_cell(row) if with_time else "",
        )
        for row, label, own in zip(rows, labels(rows), settings, strict=True)
    ]  # fmt: skip
    return without_empty_columns([HEADINGS, *cells])


def percent(row: ResultRow, value: float) -> str:
    """Return a value of a row as text: a share in percent, a loss as it is."""
    return f"{value:.3f}" if row.metric in NOT_SHARES else f"{100 * value:.1f} %"


def interval_cell(row: ResultRow) -> str:
    """Return a row's interval as text."""
    if row.interval is None:
        return ""
    low, high = (percent(row, end) for end in row.interval)
    return f"{low.removesuffix(' %')} to {high} over {row.interval_over}"


def controls_cell(row: ResultRow) -> str:
    """Return a row's controls as text."""
    return ", ".join(
        f"{name.replace('_', ' ')} {percent(row, value)}" for name, value in row.controls.items()
    )


def seed_cell(row: ResultRow) -> str:
    """Return a row's seed or seeds as text."""
    return ", ".join(map(str, row.seed if isinstance(row.seed, tuple) else [row.seed]))


def protocol_cell(row: ResultRow) -> str:
    """Return a row's protocol, with the precision where it is not the usual one."""
    return row.protocol + (f", {row.precision}" if row.precision != "float32" else "")


def time_cell(row: ResultRow) -> str:
    """Return a row's time to the minute."""
    return f"{parsed_time(row.time):%Y-%m-%d %H:%M}"


def labels(rows: Sequence[ResultRow]) -> list[str]:
    """Return what rows are called: the model, and which one where several have its name."""
    weights: dict[str, set[str]] = {}
    for row in rows:
        weights.setdefault(row.model, set()).add(row.weights)
    return [
        f"{row.model} ({row.path or row.weights[:8]})" if len(weights[row.model]) > 1 else row.model
        for row in rows
    ]


def setting_cells(rows: Sequence[ResultRow]) -> list[str]:
    """Return of each row's settings those in which rows of its data and protocol differ."""
    flat = [flat_settings(row.settings) for row in rows]
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row, own in zip(rows, flat, strict=True):
        groups.setdefault(_task(row), []).append(own)
    differing = {task: _differing(group) for task, group in groups.items()}
    return [_settings_cell(own, differing[_task(row)]) for row, own in zip(rows, flat, strict=True)]


def _settings_cell(settings: dict[str, Any], differing: set[str]) -> str:
    shown = [
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in settings.items()
        if name in SHOWN_SETTINGS or name in differing
    ]
    rest = len(shown) - MAX_SETTINGS
    return ", ".join(shown[:MAX_SETTINGS] + ([f"and {rest} more"] if rest > 0 else []))


def _differing(group: list[dict[str, Any]]) -> set[str]:
    """Return the names of the settings that not all of a group have alike."""
    first, *rest = group
    names = {name for settings in group for name in settings}
    return {
        name
        for name in names
        if any((name in one) != (name in first) or one.get(name) != first.get(name) for one in rest)
    }


def _task(row: ResultRow) -> tuple[str, str, str]:
    return row.data, row.split, row.protocol


def record(row: ResultRow) -> dict[str, Any]:
    """Return a row for JSON: its fields, and the published figures beside it as `paper`."""
    beside = [dataclasses.asdict(paper) for paper in paper_beside(row)]
    return dataclasses.asdict(row) | {"paper": beside}


def csv_columns() -> tuple[str, ...]:
    """Return the columns of `csv_record`."""
    return (*(field.name for field in dataclasses.fields(ResultRow)), *PAPER_COLUMNS)


def csv_record(row: ResultRow) -> dict[str, Any]:
    """Return a row for CSV: what is no text or number as JSON, in the fields' own units."""
    fields = dataclasses.asdict(row)
    cells = {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, dict | tuple) else value
        for name, value in fields.items()
    }
    beside = paper_beside(row)
    if beside:
        best = beside[0]
        told = (f"{best.value / 100:.6g}", best.source, best.pretraining)
        cells |= dict(zip(PAPER_COLUMNS, told, strict=True))
    return cells
