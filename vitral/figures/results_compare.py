"""Comparison of models under one protocol, and the mean of each model over data sets."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitral.config.paper_results import VTAB, average_five, paper_rows
from vitral.figures.paper_comparison import paper_cell
from vitral.figures.results_table import (
    aligned,
    controls_cell,
    csv_columns,
    csv_record,
    interval_cell,
    labels,
    markdown,
    percent,
    record,
    seed_cell,
    setting_cells,
    without_empty_columns,
)
from vitral.files.results import NOT_SHARES, ResultRow
from vitral.files.rows import csv_text

HEADINGS = (
    "model", "value", "interval", "n", "seed", "to the best", "intervals", "controls", "paper",
)  # fmt: skip
COMPARED_COLUMNS = ("difference", "intervals_overlap")


@dataclass(frozen=True)
class Comparison:
    """The newest row of each model under one protocol."""

    rows: tuple[ResultRow, ...]
    """At least two, the best first."""

    def difference(self, row: ResultRow) -> float:
        """Return a row's value minus that of the best."""
        return row.value - self.rows[0].value

    def overlap(self, row: ResultRow) -> bool | None:
        """Return whether a row's interval and that of the best overlap.

        None: one is not known, or they are over different things. Disjoint intervals mean a
        difference that is not due to chance; overlapping intervals do not mean equality.
        """
        best = self.rows[0]
        if row.interval is None or best.interval is None:
            return None
        if row.interval_over != best.interval_over:
            return None
        return row.interval[0] <= best.interval[1] and best.interval[0] <= row.interval[1]


def compare_results(rows: Sequence[ResultRow]) -> tuple[list[Comparison], int]:
    """Return the possible comparisons of rows, and the number of rows without a counterpart.

    Of rows that measure the same weights with the same seed, the last is used. The setting
    `chosen`, which a protocol chose for a model, is an outcome and may differ.
    """
    groups: dict[str, dict[Any, ResultRow]] = {}
    for row in rows:
        settings = {name: value for name, value in row.settings.items() if name != "chosen"}
        same = (row.data, row.split, row.protocol, row.metric, settings)
        group = groups.setdefault(json.dumps(same, sort_keys=True), {})
        group[row.model, row.weights, row.seed, row.precision] = row
    comparisons = [
        Comparison(tuple(sorted(group.values(), key=_worth, reverse=True)))
        for group in groups.values()
        if len(group) > 1
    ]
    return comparisons, sum(len(group) == 1 for group in groups.values())


def format_comparisons(comparisons: Sequence[Comparison], *, format: str = "table") -> str:
    """Return comparisons as text like `format_rows`: one table each, but a single CSV for all."""
    if format == "csv":
        columns = (*csv_columns(), *COMPARED_COLUMNS)
        records = (item for comparison in comparisons for item in _csv_records(comparison))
        return csv_text(records, columns=columns).removesuffix("\n")
    heads = comparison_heads(comparisons)
    tables = [comparison_cells(comparison) for comparison in comparisons]
    if format == "markdown":
        parts = [
            f"### {head}\n\n{markdown(cells)}" for head, cells in zip(heads, tables, strict=True)
        ]
    else:
        parts = [f"{head}\n{aligned(cells)}" for head, cells in zip(heads, tables, strict=True)]
    return "\n\n".join(parts)


def comparison_heads(comparisons: Sequence[Comparison]) -> list[str]:
    """Return a title for each comparison, with the settings that distinguish it from others."""
    first = [comparison.rows[0] for comparison in comparisons]
    return [
        ", ".join(filter(None, (f"{row.data} {row.split}", row.protocol, settings, row.metric)))
        for row, settings in zip(first, setting_cells(first), strict=True)
    ]


def comparison_cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the headings, then a tuple of text for each model."""
    overlap = {True: "overlap", False: "apart", None: "not known"}
    best = comparison.rows[0]
    cells = [
        (
            label if row.precision == "float32" else f"{label}, {row.precision}",
            percent(row, row.value), interval_cell(row), f"{row.num_examples:,}", seed_cell(row),
            "best" if row is best else _difference(comparison, row),
            "" if row is best else overlap[comparison.overlap(row)],
            controls_cell(row), paper_cell(row),
        )
        for row, label in zip(comparison.rows, labels(comparison.rows), strict=True)
    ]  # fmt: skip
    return without_empty_columns([HEADINGS, *cells])


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison for JSON: the common fields, and a record for each model."""
    best = comparison.rows[0]
    shared = {name: getattr(best, name) for name in ("data", "split", "protocol", "metric")}
    models = [
        record(row)
        | {"difference": comparison.difference(row), "intervals_overlap": comparison.overlap(row)}
        for row in comparison.rows
    ]
    return shared | {"settings": best.settings, "models": models}


def _worth(row: ResultRow) -> float:
    return -row.value if row.metric in NOT_SHARES else row.value


def _difference(comparison: Comparison, row: ResultRow) -> str:
    difference = comparison.difference(row)
    return f"{difference:+.3f}" if row.metric in NOT_SHARES else f"{100 * difference:+.1f} points"


def _csv_records(comparison: Comparison) -> list[dict[str, Any]]:
    compared = ((comparison.difference(row), comparison.overlap(row)) for row in comparison.rows)
    return [
        csv_record(row) | dict(zip(COMPARED_COLUMNS, cells, strict=True))
        for row, cells in zip(comparison.rows, compared, strict=True)
    ]


AVERAGE_HEADINGS = ("model", "protocol", "mean", "value", "of", "paper")


def averages(rows: Sequence[ResultRow]) -> list[dict[str, Any]]:
    """Return a record for each model and protocol with test scores on at least two data sets.

    For each data set, a mean over seeds is preferred to a single run, and then a later row to an
    earlier one. VTAB has its own means, and is left out.

    Args:
        rows: oldest first.

    Returns:
        `model`, `weights`, `protocol`, `name` of the mean ("Average-5": only of the paper's five),
        `value` (a share), `values` by data set, `paper` (a share; None: not known).
    """
    groups: dict[tuple[str, str, str, str], dict[str, ResultRow]] = {}
    for row in rows:
        if row.metric != "accuracy" or row.split != "test" or row.protocol.startswith(VTAB):
            continue
        shots = str(row.settings.get("shots", ""))
        by_data = groups.setdefault((row.model, row.weights, row.protocol, shots), {})
        before = by_data.get(row.data)
        if before is None or _num_seeds(row) >= _num_seeds(before):
            by_data[row.data] = row
    return [_record(group) for group in groups.values() if len(group) > 1]


def average_cells(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return the headings, then a tuple of text for each mean."""
    cells = [
        (
            average["model"],
            average["protocol"],
            average["name"],
            f"{100 * average['value']:.1f} %",
            ", ".join(f"{data} {100 * value:.1f}" for data, value in average["values"].items()),
            "" if average["paper"] is None else f"{100 * average['paper']:.1f} %",
        )
        for average in records
    ]
    return without_empty_columns([AVERAGE_HEADINGS, *cells])


def _record(rows: dict[str, ResultRow]) -> dict[str, Any]:
    row = next(iter(rows.values()))
    values = {data: result.value for data, result in rows.items()}
    name, value = average_five(values)
    published = []
    if name == "Average-5" and row.protocol.startswith("finetune"):
        published = paper_rows(row.model, "average-5", pretraining=row.pretraining or None)
    shots = row.settings.get("shots")
    return {
        "model": row.model,
        "weights": row.weights,
        "protocol": row.protocol + (f", {shots} shots" if shots else ""),
        "name": name,
        "value": value,
        "values": values,
        "paper": published[0].value / 100 if published else None,
    }


def _num_seeds(row: ResultRow) -> int:
    return len(row.seed) if isinstance(row.seed, tuple) else 1
