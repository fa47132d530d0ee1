"""Sections of a report: training curves, confident mistakes, usage, settings and environment."""

import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from vitral.figures.finished_run import FinishedRun, Record
from vitral.figures.html import (
    DASH,
    Html,
    collapsible,
    count,
    element,
    inline_image,
    join,
    missing,
    name_of,
    paragraph,
    percent,
    row,
    section,
    table,
)
from vitral.figures.pictures import overlay_attention, to_picture, to_png
from vitral.figures.plots import curve_names, draw_curves, save_figure, smoothing_window


def training_section(run: FinishedRun) -> Html:
    """Draw `curves.png` and render the section around it."""
    title = "Training"
    if not run.metrics:
        return section("training", title, missing("metrics.jsonl has no rows: no curves to draw."))
    path = run.path / "curves.png"
    save_figure(draw_curves(run.metrics), path)
    names = [name.replace("_", " ") for name in curve_names(run.metrics)]
    alt = f"{', '.join(names).capitalize()} over the course of training"
    return section(
        "training",
        title,
        inline_image(path.read_bytes(), alt=alt, class_="plot wide"),
        paragraph(*_describe_curves(run.metrics)),
        paragraph(_smoothing(run.metrics), class_="small"),
    )


def _describe_curves(rows: list[Record]) -> list[str | None]:
    """Describe the last values of the curves, and the lowest validation loss."""
    train = [row for row in rows if row["split"] == "train"]
    validation = [row for row in rows if row["split"] == "validation"]
    words = [_end("training", train), _end("validation", validation)]
    losses = [row for row in validation if _is_number(row.get("loss"))]
    if len(losses) > 1:
        best = min(losses, key=lambda row: float(row["loss"]))
        words.append(
            f"The validation loss was least, {best['loss']:.3f}, after epoch {best['epoch']:.3g}. "
        )
    if not validation:
        words.append("No validation was measured while training. ")
    elif train and _is_number(train[-1].get("accuracy")):
        words.append(
            "Training figures are of augmented images, with dropout where it is on: their accuracy "
            "may lie below that of validation. "
        )
    return words


def _end(name: str, rows: list[Record]) -> str | None:
    """Describe the last loss and accuracy of a split."""
    if not rows or not _is_number(rows[-1].get("loss")):
        return None
    last = rows[-1]
    accuracy = last.get("accuracy")
    share = f", accuracy {percent(accuracy)}" if _is_number(accuracy) else ""
    return f"At step {count(last['step'])} the {name} loss was {last['loss']:.3f}{share}. "


def _smoothing(rows: list[Record]) -> str | None:
    """Explain the bold and pale lines, if the curves are smoothed."""
    window = smoothing_window(sum(row["split"] == "train" for row in rows))
    if window == 1:
        return None
    return f"Pale: as measured. Bold: mean of {window} neighbouring measurements."


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)


NUM_SHOWN, NUM_OPEN = 24, 12
"""Number of mistakes in the page, and of those shown without unfolding."""
NOTHING = "nothing"
"""Label of an image without classes, in multi-label data."""


def mistakes_section(run: FinishedRun) -> Html:
    """Render the most confident mistakes, in descending order of probability."""
    title = "The most confident mistakes"
    if not run.mistakes:
        absent = "This folder has no mistakes.npz, so there are no pictures to show."
        return section("mistakes", title, missing(absent))
    order = np.argsort(-run.mistakes["probabilities"], kind="stable")[:NUM_SHOWN].tolist()
    if not order:
        return section("mistakes", title, paragraph("There are none: every image is right."))
    cards = [_card(run, index) for index in order]
    has_attention = "attention" in run.mistakes
    explanation = (
        "Beside each picture: where the last block's attention went, from dark (least) to yellow "
        "(most), on a scale of its own. "
        if has_attention
        else ""
    )
    return section(
        "mistakes",
        title,
        paragraph(
            f"The {count(len(order), 'wrong answer')} that the model was surest of. {explanation}"
            "Look here for wrong labels, for images of two classes at once, and for what the "
            "model takes as a sign of a class."
        ),
        element("div", *cards[:NUM_OPEN], class_="cards"),
        collapsible(
            f"{len(cards) - NUM_OPEN} more", element("div", *cards[NUM_OPEN:], class_="cards")
        )
        if len(cards) > NUM_OPEN
        else None,
    )


def _card(run: FinishedRun, index: int) -> Html:
    """Render one mistake: picture, attention, true and predicted class."""
    mistakes = run.mistakes
    true, predicted = (str(mistakes[key][index]) or NOTHING for key in ("labels", "predictions"))
    picture = to_picture(mistakes["images"][index])
    alt = f"{true}, taken for {predicted}"
    pictures = [inline_image(to_png(picture), alt=alt)]
    if "attention" in mistakes:
        heat = overlay_attention(picture, mistakes["attention"][index])
        pictures.append(inline_image(to_png(heat), alt="The model's attention on this picture"))
    caption = element(
        "figcaption",
        element("div", element("span", "is "), element("b", name_of(true))),
        element(
            "div",
            element("span", "taken for "),
            element("b", name_of(predicted), class_="wrong"),
            element("span", f" {percent(float(mistakes['probabilities'][index]))}"),
        ),
        element("div", name_of(mistakes["names"][index]), class_="file"),
    )
    return element("figure", element("div", join(pictures), class_="pair"), caption)


def usage_section(run: FinishedRun) -> Html:
    """Render how to use the model from the shell and from Python."""
    model = (_display_path(run.path) / "model").as_posix()
    shell = f"vitral predict {shlex.quote(model)} image.jpg"
    python = (
        f'import vitral\n\npredictor = vitral.Predictor({_string(model)})\npredictor(["image.jpg"])'
    )
    return section(
        "use",
        "Use the model",
        paragraph("From the shell:"),
        element("pre", element("code", shell), class_="command"),
        paragraph("From Python:"),
        element("pre", element("code", python), class_="command"),
    )


def origins_section(run: FinishedRun) -> Html:
    """Render all settings with their origins, and the software and hardware environment."""
    return section(
        "again", "To train it again", _settings(run.config), _environment(run.environment)
    )


def _display_path(path: Path) -> Path:
    """Return a path as one would type it: relative if it is below the working directory."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _string(text: str) -> str:
    """Return a Python string literal, in double quotes if possible."""
    return f'"{text}"' if text.isprintable() and not set(text) & {'"', "\\"} else repr(text)


def _settings(config: dict[str, Any]) -> Html:
    """Render one row per setting."""
    if not config.get("settings"):
        return missing("This folder has no config.yaml with settings.")
    origin = config.get("origin") or {}
    rows = [
        row(
            element("code", name),
            element("td", element("code", _value(value))),
            element("td", element("span", origin.get(name, DASH), class_="origin")),
        )
        for name, value in flatten(config["settings"])
    ]
    head = ["Setting", "Value", "From"]
    listed = table(head, rows, class_="files", label="All settings")
    return collapsible(f"All {len(rows)} settings, and where each came from", listed)


def flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (`optimizer.learning_rate`, value) from nested settings, in their order."""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def _value(value: Any) -> str:
    """Format a value as in a configuration file."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _environment(environment: dict[str, Any]) -> Html:
    """Render the versions of software and the machine."""
    if not environment:
        return missing("This folder has no environment.json.")
    rows = [row(name, value) for name, value in environment.items()]
    return collapsible(
        "Software and machine",
        table(["What", "Which"], rows, class_="files", label="Software and machine"),
    )
