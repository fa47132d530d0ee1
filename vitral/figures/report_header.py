"""The header of a report, and warnings about its score."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from vitral.figures.finished_run import FinishedRun, Record
from vitral.figures.html import (
    Html,
    count,
    duration,
    element,
    facts,
    join,
    name_of,
    note,
    paragraph,
    quoted,
)
from vitral.figures.pictures import draw_window
from vitral.metrics import right_answers


def head(run: FinishedRun) -> Html:
    """Render the header: model, data, command, start and duration of training."""
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
    details = element(
        "div",
        title,
        unfinished(status),
        element("pre", element("code", command), class_="command") if command else None,
        facts(rows),
        _recipe(summary),
    )
    return join([window, details])


def _training_time(run: FinishedRun) -> str | None:
    """Format the duration of training, as recorded, else from the start to the last update."""
    if run.timings and run.timings[-1].get("seconds") is not None:
        return duration(float(run.timings[-1]["seconds"]))
    try:
        began, ended = (datetime.fromisoformat(run.status[key]) for key in ("started", "updated"))
        return duration((ended - began).total_seconds())
    except (KeyError, TypeError, ValueError):
        return None


def moment(written: Any) -> str | None:
    """Format an ISO time readably, in UTC; an invalid one is returned unchanged."""
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
    """Render the recipe and the reason for its choice."""
    recipe, reason = summary.get("recipe"), summary.get("recipe_reason")
    if not recipe:
        return None
    because = [": ", reason] if reason else []
    return paragraph("Recipe ", element("b", recipe), *because, class_="recipe")


def _maybe(record: Record, key: str, write: Callable[[Any], str]) -> str | None:
    return None if record.get(key) is None else write(record[key])


def unfinished(status: Record) -> Html | None:
    """Render a warning if the run is not finished."""
    state = status.get("state", "done")
    if state == "done":
        return None
    reason = status.get("reason")
    return note(
        element("b", f"This run is not finished: {state}"), f" ({reason})." if reason else "."
    )


def not_a_test(split: str) -> Html | None:
    """Render a warning if the score is not measured on a test split."""
    if split == "test":
        return None
    reason = {
        "validation": "choices made during training may have followed these images",
        "train": "the weights were fitted to these very images",
    }.get(split, "nothing here says whether training saw these images")
    return note(
        element("b", "This is not a test score. "),
        "It is measured on the split ",
        quoted(split),
        f", and {reason}: expect less on new images.",
    )


def num_copies(run: FinishedRun) -> int:
    """Return the number of pairs of equal images in different splits."""
    return int((run.data_report.get("duplicates") or {}).get("across", 0))


def copies_across_splits(run: FinishedRun) -> Html | None:
    """Render a warning if images are in two splits."""
    copies = num_copies(run)
    if not copies:
        return None
    return note(
        element("b", "Some images are in two splits. "),
        f"{count(copies, 'image')} of one split {'is' if copies == 1 else 'are'} found in another "
        "too (see Data), so part of the score may be memory.",
    )


def disagreement(run: FinishedRun) -> Html | None:
    """Render a warning if the stored predictions do not match the score."""
    if not run.predictions:
        return None
    labels = run.predictions["labels"]
    right = int(right_answers(run.predictions["probabilities"], labels).sum())
    scored, accuracy = int(run.summary["num_examples"]), float(run.summary["accuracy"])
    if len(labels) == scored and abs(right - accuracy * scored) < 0.5:
        return None
    return note(
        element("b", "The files of this run disagree. "),
        f"summary.json counts {accuracy * scored:,.0f} of {scored:,} images right, "
        f"test_predictions.npz {right:,} of {len(labels):,}.",
    )
