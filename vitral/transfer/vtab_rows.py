"""Rows of results for VTAB's means over tasks."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitral.data.datasets.names import VTAB_PREFIX
from vitral.data.datasets.table import TASKS
from vitral.figures.paper_beside import flat_settings
from vitral.files.results import ResultRow, utc_now
from vitral.spec.paper_results import VTAB, VTAB_GROUPS, vtab_means


def mean_rows(rows: Sequence[ResultRow], folder: Path) -> list[ResultRow]:
    """Return the rows of the means over groups of tasks that are complete, and over all 19.

    Args:
        rows: one a task.
        folder: where all of them are.
    """
    means = vtab_means({row.data: row.value for row in rows})
    return [_mean_row(rows, group, value, folder) for group, value in means.items()]


def _mean_row(rows: Sequence[ResultRow], group: str, value: float, folder: Path) -> ResultRow:
    tasks = VTAB_GROUPS.get(group, tuple(TASKS))
    own = [row for row in rows if row.data.removeprefix(VTAB_PREFIX) in tasks]
    return dataclasses.replace(
        own[0],
        data=f"{VTAB_PREFIX}{group}" if group in VTAB_GROUPS else VTAB,
        settings=_shared_settings(own),
        value=value,
        num_examples=sum(row.num_examples for row in own),
        interval=None,
        interval_over=None,
        controls={},
        time=utc_now(),
        path=str(folder),
    )


def _shared_settings(rows: Sequence[ResultRow]) -> dict[str, Any]:
    """Return the settings that rows have alike, by path."""
    first, *rest = (flat_settings(row.settings) for row in rows)
    return {
        path: own
        for path, own in first.items()
        if all(path in other and other[path] == own for other in rest)
    }
