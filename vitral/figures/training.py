"""The course of training: loss and accuracy, and what they were at the end."""

import math
from typing import Any, TypeGuard

from vitral.figures.page import Html, count, inline_image, missing, paragraph, percent, section
from vitral.figures.plots import curve_names, draw_curves, save_figure, smoothing_window
from vitral.figures.run_folder import Record, RunFolder


def training_section(run: RunFolder) -> Html:
    """Draw `curves.png` and write the section around it."""
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
        paragraph(*_in_words(run.metrics)),
        paragraph(_smoothing(run.metrics), class_="small"),
    )


def _in_words(rows: list[Record]) -> list[str | None]:
    """Say where the lines end, and where the validation loss was least."""
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
    """Say the last loss and accuracy of a split."""
    if not rows or not _is_number(rows[-1].get("loss")):
        return None
    last = rows[-1]
    accuracy = last.get("accuracy")
    share = f", accuracy {percent(accuracy)}" if _is_number(accuracy) else ""
    return f"At step {count(last['step'])} the {name} loss was {last['loss']:.3f}{share}. "


def _smoothing(rows: list[Record]) -> str | None:
    """Say what the bold line is where there is a pale one behind it."""
    window = smoothing_window(sum(row["split"] == "train" for row in rows))
    if window == 1:
        return None
    return f"Pale: as measured. Bold: mean of {window} neighbouring measurements."


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)
