"""The head of a report: what was trained on what, by which command, when, how long."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from vitral.figures.cautions import unfinished
from vitral.figures.glass import draw_window
from vitral.figures.page import Html, count, duration, element, facts, join, name_of, paragraph
from vitral.figures.run_folder import Record, RunFolder


def head(run: RunFolder) -> Html:
    """Write what was trained on what, by which command, when, and how long it took."""
    summary, status = run.summary, run.status
    model = str(summary.get("model", "A model"))
    data = str(run.data_report.get("name") or summary.get("data", "data"))
    command = run.config.get("command")
    title = element("h1", name_of(model), element("span", " trained on "), name_of(data))
    rows = [
        ("Training time", _training_time(run)),
        ("Started", moment(status.get("started"))),
        ("Length", _length(summary)),
        ("Model size", _maybe(summary, "parameters", lambda n: count(n, "parameter"))),
        ("Device", run.environment.get("device")),
        ("Precision", summary.get("precision")),
    ]
    window = element("header", draw_window(f"{model} {data} {command}"), class_="glass")
    told = element(
        "div",
        title,
        unfinished(status),
        element("pre", element("code", command), class_="command") if command else None,
        facts(rows),
        _recipe(summary),
    )
    return join([window, told])


def _training_time(run: RunFolder) -> str | None:
    """Say how long training took, by its own clock, else from start to last sign of life."""
    if run.timings and run.timings[-1].get("seconds") is not None:
        return duration(float(run.timings[-1]["seconds"]))
    try:
        began, ended = (datetime.fromisoformat(run.status[key]) for key in ("started", "updated"))
        return duration((ended - began).total_seconds())
    except (KeyError, TypeError, ValueError):
        return None


def moment(written: Any) -> str | None:
    """Write an ISO time for people, in UTC; one that can't be read as it stands."""
    if not written:
        return None
    try:
        time = datetime.fromisoformat(str(written))
    except ValueError:
        return str(written)
    zone = ""
    if time.tzinfo is not None:
        time, zone = time.astimezone(UTC), " UTC"
    return f"{time.day} {time:%B %Y, %H:%M}{zone}"


def _length(summary: Record) -> str | None:
    steps, epochs = summary.get("steps"), summary.get("epochs")
    if steps is None:
        return None
    return count(steps, "step") + (f" ({epochs:.3g} epochs)" if epochs is not None else "")


def _recipe(summary: Record) -> Html | None:
    """Say which recipe was followed, and why that one."""
    recipe, reason = summary.get("recipe"), summary.get("recipe_reason")
    if not recipe:
        return None
    because = [": ", reason] if reason else []
    return paragraph("Recipe ", element("b", recipe), *because, class_="recipe")


def _maybe(record: Record, key: str, write: Callable[[Any], str]) -> str | None:
    return None if record.get(key) is None else write(record[key])
