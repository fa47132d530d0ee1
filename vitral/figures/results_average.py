"""Each model's mean over data sets: Average-5 over the paper's five, else named after its sets."""

from collections.abc import Sequence
from typing import Any

from vitral.figures.text_table import without_empty_columns
from vitral.files.results import ResultRow
from vitral.spec.paper_results import VTAB, average_five, paper_rows

HEADINGS = ("model", "protocol", "mean", "value", "of", "paper")


def averages(rows: Sequence[ResultRow]) -> list[dict[str, Any]]:
    """Return a record for each model and protocol of which two data sets or more have a test score.

    Of one data set a mean over seeds goes before a single run, and a later row before an earlier.
    VTAB has means of its own, and is left out.

    Args:
        rows: oldest first.

    Returns:
        `model`, `weights`, `protocol`, `name` of the mean ("Average-5": of the paper's five alone),
        `value` (a share), `values` by data set, `paper` (a share; None: not known).
    """
    groups: dict[tuple[str, str, str, str], dict[str, ResultRow]] = {}
    for row in rows:
        if row.metric != "accuracy" or row.split != "test" or row.protocol.startswith(VTAB):
            continue
        shots = str(row.settings.get("shots", ""))
        own = groups.setdefault((row.model, row.weights, row.protocol, shots), {})
        before = own.get(row.data)
        if before is None or _num_seeds(row) >= _num_seeds(before):
            own[row.data] = row
    return [_record(own) for own in groups.values() if len(own) > 1]


def average_cells(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return the headings, then a tuple of text for each mean."""
    cells = [
        (
            own["model"],
            own["protocol"],
            own["name"],
            f"{100 * own['value']:.1f} %",
            ", ".join(f"{data} {100 * value:.1f}" for data, value in own["values"].items()),
            "" if own["paper"] is None else f"{100 * own['paper']:.1f} %",
        )
        for own in records
    ]
    return without_empty_columns([HEADINGS, *cells])


def _record(rows: dict[str, ResultRow]) -> dict[str, Any]:
    row = next(iter(rows.values()))
    values = {data: own.value for data, own in rows.items()}
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
