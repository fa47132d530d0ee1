"""The rows of results that are asked for."""

import datetime
from collections.abc import Callable, Sequence
from typing import Any

from vitral.errors import RequestError, nearest
from vitral.files.results import ResultRow, parsed_time
from vitral.spec.catalogue import fold
from vitral.spec.names import parse_model_name
from vitral.spec.paper_results import canonical_model, is_kind_of


def filter_results(
    rows: Sequence[ResultRow],
    *,
    model: str | None = None,
    data: str | None = None,
    protocol: str | None = None,
    metric: str | None = None,
    since: str | None = None,
) -> list[ResultRow]:
    """Return the rows that have all that is given, in their order.

    Args:
        rows: all.
        model: its name in any spelling, or a part of the model's or path's.
        data: its name, whatever case and separators.
        protocol: its name, or that of all its kinds (`finetune`).
        metric: its name.
        since: a day or time, ISO 8601; in UTC where it does not say.

    Raises:
        RequestError: nothing is left; the nearest value is named.
    """
    first = _moment(since) if since else None
    kept = list(rows)
    for name, wanted, matches in (
        ("model", model, _has_model),
        ("data", data, lambda row, text: fold(row.data) == fold(text)),
        ("protocol", protocol, lambda row, text: is_kind_of(row.protocol, text)),
        ("metric", metric, lambda row, text: fold(row.metric) == fold(text)),
    ):
        kept = kept if wanted is None else _keep(rows, kept, name, wanted, matches)
    if first is not None:
        kept = [row for row in kept if parsed_time(row.time) >= first]
        if not kept:
            raise RequestError(f"no result is as new as --since {since}: give an earlier day")
    return kept


def _keep(
    rows: Sequence[ResultRow],
    kept: list[ResultRow],
    name: str,
    wanted: str,
    matches: Callable[[ResultRow, str], Any],
) -> list[ResultRow]:
    found = [row for row in kept if matches(row, wanted)]
    if not found:
        if any(matches(row, wanted) for row in rows):
            raise RequestError(
                f"no result has --{name} {wanted} and the rest too: leave an option out"
            )
        known = sorted({str(getattr(row, name)) for row in rows})
        raise RequestError(f"no result has --{name} {wanted}{nearest(wanted, known)}")
    return found


def _has_model(row: ResultRow, text: str) -> bool:
    """Say whether a row is of a model; a full name is no part of another's."""
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
