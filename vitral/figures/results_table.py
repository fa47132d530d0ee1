"""Rows of results, filtered and formatted for a terminal, as Markdown or as CSV."""

import dataclasses
import datetime
import json
from collections.abc import Callable, Sequence
from typing import Any

from vitral.config.catalogue import fold
from vitral.config.names import parse_model_name
from vitral.config.paper_results import canonical_model, is_kind_of
from vitral.errors import RequestError, nearest
from vitral.figures.paper_comparison import comparable_paper_rows, flat_settings, paper_cell
from vitral.files.results import NOT_SHARES, ResultRow, parsed_time
from vitral.files.rows import csv_text

FORMATS = ("table", "markdown", "csv")
HEADINGS = (
    "model", "data", "protocol", "settings", "metric", "value", "interval", "n", "seed",
    "controls", "paper", "time",
)  # fmt: skip
PAPER_COLUMNS = ("paper_value", "paper_source", "paper_pretraining")
SHOWN_SETTINGS = ("shots",)
"""Settings that are shown even if they are equal in all rows."""
MAX_SETTINGS = 4


def format_rows(
    rows: Sequence[ResultRow], *, format: str = "table", with_time: bool = False
) -> str:
    """Return rows as text, as commands print their new rows, and `vitral results` all rows.

    Percentages have one decimal. Columns that are empty in every row are left out. Settings are
    shown if they differ between rows of the same protocol and data.

    Args:
        rows: at least one.
        format: `table`, aligned for a terminal; `markdown`; `csv`, which has every field in full
            and the most similar published figure.
        with_time: whether to show the time of each measurement.
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
            label, f"{row.data} {row.split}", protocol_cell(row), changed, row.metric,
            percent(row, row.value), interval_cell(row), f"{row.num_examples:,}", seed_cell(row),
            controls_cell(row), paper_cell(row), time_cell(row) if with_time else "",
        )
        for row, label, changed in zip(rows, labels(rows), settings, strict=True)
    ]  # fmt: skip
    return without_empty_columns([HEADINGS, *cells])


def percent(row: ResultRow, value: float) -> str:
    """Return a value of a row as text: a share in percent, a loss unchanged."""
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
    """Return a row's protocol, with the precision if it is not float32."""
    return row.protocol + (f", {row.precision}" if row.precision != "float32" else "")


def time_cell(row: ResultRow) -> str:
    """Return a row's time to the minute."""
    return f"{parsed_time(row.time):%Y-%m-%d %H:%M}"


def labels(rows: Sequence[ResultRow]) -> list[str]:
    """Return labels of rows: the model's name, with its path or hash if it is ambiguous."""
    weights: dict[str, set[str]] = {}
    for row in rows:
        weights.setdefault(row.model, set()).add(row.weights)
    return [
        f"{row.model} ({row.path or row.weights[:8]})" if len(weights[row.model]) > 1 else row.model
        for row in rows
    ]


def setting_cells(rows: Sequence[ResultRow]) -> list[str]:
    """Return for each row the settings in which rows of its data and protocol differ."""
    flat = [flat_settings(row.settings) for row in rows]
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row, settings in zip(rows, flat, strict=True):
        groups.setdefault(_task(row), []).append(settings)
    differing = {task: _differing(group) for task, group in groups.items()}
    return [
        _settings_cell(settings, differing[_task(row)])
        for row, settings in zip(rows, flat, strict=True)
    ]


def _settings_cell(settings: dict[str, Any], differing: set[str]) -> str:
    shown = [
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in settings.items()
        if name in SHOWN_SETTINGS or name in differing
    ]
    rest = len(shown) - MAX_SETTINGS
    return ", ".join(shown[:MAX_SETTINGS] + ([f"and {rest} more"] if rest > 0 else []))


def _differing(group: list[dict[str, Any]]) -> set[str]:
    """Return the names of the settings that are not equal in all of a group."""
    first, *rest = group
    names = {name for settings in group for name in settings}
    return {
        name
        for name in names
        if any(
            (name in other) != (name in first) or other.get(name) != first.get(name)
            for other in rest
        )
    }


def _task(row: ResultRow) -> tuple[str, str, str]:
    return row.data, row.split, row.protocol


def record(row: ResultRow) -> dict[str, Any]:
    """Return a row for JSON: its fields, and the comparable published figures as `paper`."""
    published = [dataclasses.asdict(paper) for paper in comparable_paper_rows(row)]
    return dataclasses.asdict(row) | {"paper": published}


def csv_columns() -> tuple[str, ...]:
    """Return the columns of `csv_record`."""
    return (*(field.name for field in dataclasses.fields(ResultRow)), *PAPER_COLUMNS)


def csv_record(row: ResultRow) -> dict[str, Any]:
    """Return a row for CSV in the units of the fields; other than text and numbers as JSON."""
    fields = dataclasses.asdict(row)
    cells = {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, dict | tuple) else value
        for name, value in fields.items()
    }
    published = comparable_paper_rows(row)
    if published:
        best = published[0]
        values = (f"{best.value / 100:.6g}", best.source, best.pretraining)
        cells |= dict(zip(PAPER_COLUMNS, values, strict=True))
    return cells


Cells = Sequence[Sequence[str]]


def aligned(rows: Cells) -> str:
    """Return rows with aligned columns, two spaces apart; the first row holds the headings."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def markdown(rows: Cells) -> str:
    """Return rows as a Markdown table, with special characters escaped."""
    headings, *rest = rows
    lines = [headings, ["---"] * len(headings), *rest]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(cell: str) -> str:
    return " ".join(cell.replace("\\", "\\\\").replace("|", "\\|").split())


def without_empty_columns(rows: Cells) -> list[tuple[str, ...]]:
    """Return rows without the columns that are empty except for the heading."""
    _, *rest = rows
    filled = [number for number in range(len(rows[0])) if any(row[number] for row in rest)]
    return [tuple(row[number] for number in filled) for row in rows]


def filter_results(
    rows: Sequence[ResultRow],
    *,
    model: str | None = None,
    data: str | None = None,
    protocol: str | None = None,
    metric: str | None = None,
    since: str | None = None,
) -> list[ResultRow]:
    """Return the rows that match all given criteria, in their order.

    Args:
        rows: all.
        model: its name in any spelling, or a part of the name or path.
        data: its name, ignoring case and separators.
        protocol: its name, or that of a family (`finetune`).
        metric: its name.
        since: a day or time, ISO 8601; in UTC if it has no time zone.

    Raises:
        RequestError: no row matches; the message names the nearest value.
    """
    earliest = _moment(since) if since else None
    matching = list(rows)
    for name, wanted, matches in (
        ("model", model, _has_model),
        ("data", data, lambda row, text: fold(row.data) == fold(text)),
        ("protocol", protocol, lambda row, text: is_kind_of(row.protocol, text)),
        ("metric", metric, lambda row, text: fold(row.metric) == fold(text)),
    ):
        matching = matching if wanted is None else _keep(rows, matching, name, wanted, matches)
    if earliest is not None:
        matching = [row for row in matching if parsed_time(row.time) >= earliest]
        if not matching:
            raise RequestError(f"no result is as new as --since {since}: give an earlier day")
    return matching


def _keep(
    rows: Sequence[ResultRow],
    matching: list[ResultRow],
    name: str,
    wanted: str,
    matches: Callable[[ResultRow, str], Any],
) -> list[ResultRow]:
    found = [row for row in matching if matches(row, wanted)]
    if not found:
        if any(matches(row, wanted) for row in rows):
            raise RequestError(
                f"no result has --{name} {wanted} and the rest too: leave an option out"
            )
        known = sorted({str(getattr(row, name)) for row in rows})
        raise RequestError(f"no result has --{name} {wanted}{nearest(wanted, known)}")
    return found


def _has_model(row: ResultRow, text: str) -> bool:
    """Return whether a row is of a model; a full name does not match as part of another's."""
    try:
        return canonical_model(row.model) == parse_model_name(text)["name"]
    except RequestError:
        return fold(text) in fold(row.model) or text in row.path


def _moment(text: str) -> datetime.datetime:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise RequestError(f"--since {text}: give a day or time, such as 2026-11-26") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
