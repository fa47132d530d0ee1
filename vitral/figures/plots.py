"""Plots of a report: matplotlib figures from rows and arrays.

Figures use matplotlib's object interface: nothing here touches pyplot's global state or needs a
display, and the caller's matplotlib settings do not affect the figures.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitral.figures.html import shorten
from vitral.metrics import Calibration, ratio

COBALT, RUBY, AMBER, EMERALD = "#2450b8", "#b4233f", "#d68a00", "#14805e"
INK, MUTED, LINES = "#1c2333", "#667085", "#e3e6ed"
STYLE: dict[Any, Any] = {
    **{
        key: value
        for key, value in mpl.rcParamsDefault.items()
        if not key.startswith(("backend", "interactive", "toolbar", "webagg", "docstring", "date"))
    },
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINES,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "figure.dpi": 100,
    "svg.hashsalt": "vitral",
}
SERIES = {
    "train": ("training", COBALT, "-"),
    "validation": ("validation", RUBY, "-"),
    "validation_raw": ("validation, weights not averaged", AMBER, "--"),
    "test": ("test", EMERALD, "-"),
}
FEWSHOT_SERIES = ((EMERALD, "--"), (AMBER, "-."), (MUTED, "--"), (INK, "-."), (EMERALD, ":"))
"""Colours and line styles of few-shot scores, in a cycle."""
MAX_SMALL, MAX_COUNTED, MAX_NAMED = 5, 25, 60
"""Maximum numbers of classes for a confusion matrix that is small, shows counts, shows names."""
MAX_LABEL_LENGTH = 22
DOTS_PER_INCH = 200
MOST_CURVES = 6
"""Maximum number of panels of curves."""
_NOT_MEASURED = ("step", "epoch", "split", "learning_rate", "grad_norm")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or SVG, by the path's suffix; equal figures give equal bytes."""
    omitted = {".svg": ("Date", "Creator")}.get(path.suffix, ("Software",))
    with mpl.rc_context(STYLE):
        figure.savefig(
            path,
            dpi=DOTS_PER_INCH,
            facecolor="white",
            bbox_inches="tight",
            metadata=dict.fromkeys(omitted),
        )


@mpl.rc_context(STYLE)
def draw_curves(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw the loss and other metrics over the course of training, with a line for each split.

    Args:
        rows: `step`, `epoch`, `split`, `loss`, and figures of any name, such as `accuracy`, which
            is a share and drawn in percent; missing or non-finite values leave a gap.
    """
    names = curve_names(rows)
    figure = Figure(figsize=(7.5, 2.5 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), 1, sharex=True, squeeze=False)
    panels: dict[str, Axes] = dict(zip(names, grid[:, 0], strict=True))
    unit = "epoch" if max((row["epoch"] for row in rows), default=0) >= 2 else "step"
    fewshot = dict.fromkeys(row["split"] for row in rows if row["split"].endswith("-shot"))
    shown = SERIES | {
        split: (split, color, line)
        for split, (color, line) in zip(fewshot, itertools.cycle(FEWSHOT_SERIES), strict=False)
    }
    for split, (label, color, line) in shown.items():
        of_split = [row for row in rows if row["split"] == split]
        x = np.array([row[unit] for row in of_split], dtype=np.float64)
        for name, axes in panels.items():
            y = (100 if name == "accuracy" else 1) * _column(of_split, name)
            _draw_series(axes, x, y, label=label, color=color, line=line)
    for name, axes in panels.items():
        axes.set_ylabel("accuracy (%)" if name == "accuracy" else name.replace("_", " "))
    axes.set_xlabel(unit)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    figure.align_ylabels()
    lines = {
        str(line.get_label()): line for axes in [*panels.values()][::-1] for line in axes.lines
    }
    named = {label: line for label, line in lines.items() if not label.startswith("_")}
    if named:
        figure.legend(named.values(), named, loc="outside upper left", ncols=4)
    return figure


def curve_names(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of the metrics in rows: the loss first, at most MOST_CURVES."""
    measured = dict.fromkeys(name for row in rows for name in row if name not in _NOT_MEASURED)
    return ["loss", *(name for name in measured if name != "loss")][:MOST_CURVES]


def _column(rows: Sequence[dict[str, Any]], key: str) -> NDArray[np.float64]:
    """Return one value per row, NaN if it is missing or not finite."""
    values = [row.get(key) for row in rows]
    column = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    column[~np.isfinite(column)] = np.nan
    return column


def _draw_series(
    axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], *, label: str, color: str, line: str
) -> None:
    """Draw a line; many points are drawn as a pale line under their running mean."""
    if np.isnan(y).all():
        return
    window = smoothing_window(len(y))
    if window == 1:
        marker, size = ("D", 6.0) if len(y) == 1 else ("o" if len(y) <= 40 else "", 3.5)
        axes.plot(x, y, line, color=color, marker=marker, ms=size, lw=1.6, label=label)
        return
    axes.plot(x, y, line, color=color, lw=0.8, alpha=0.25)
    axes.plot(x, running_mean(y, window), line, color=color, lw=1.8, label=label)


def smoothing_window(num_rows: int) -> int:
    """Return the window of a curve's running mean: 1 up to 60 rows, then 1/30 of them."""
    return 1 if num_rows <= 60 else 2 * (num_rows // 60) + 1


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the running mean over a centred window, which is truncated at the ends."""
    known = ~np.isnan(values)
    kernel = np.ones(window)
    sums = np.convolve(np.where(known, values, 0), kernel, mode="same")
    counts = np.convolve(known.astype(np.float64), kernel, mode="same")
    return ratio(sums, counts)


def class_labels(classes: Sequence[str]) -> list[str]:
    """Return the labels of classes in a plot.

    Long names are shortened. A class is labelled by its index, such as `#3`, if the font lacks a
    letter of its name; all are if there are more than `MAX_NAMED`.
    """
    if len(classes) > MAX_NAMED:
        return [f"#{index}" for index in range(len(classes))]
    return [drawable(name, instead=f"#{index}") for index, name in enumerate(classes)]


def drawable(name: str, *, instead: str = "(a name without letters of the font)") -> str:
    """Return a shortened name, or `instead` if the font can't render it."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    known = name.isprintable() and all(font.get_char_index(ord(c)) for c in name)
    return shorten(name, MAX_LABEL_LENGTH) if known and name.strip() else instead


@mpl.rc_context(STYLE)
def draw_confusions(confusions: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Draw the confusion matrix: rows are true classes, columns predicted; correct blue, wrong red.

    The colour is the share of the row; for errors its square root, so that rare ones are visible.
    Counts are shown for up to 25 classes and names for up to 60.

    Args:
        confusions: (K, K) images by true class (row) and predicted class (column).
        classes: K names.
    """
    num_classes = len(classes)
    side = 4.6 if num_classes <= MAX_SMALL else 6.2 if num_classes <= 12 else 8.0
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = confusions / np.maximum(confusions.sum(axis=1, keepdims=True), 1)
    axes.imshow(_paint_confusions(shares), interpolation="nearest")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    cell_points = 0.78 * side * 72 / num_classes
    _write_class_ticks(axes, class_labels(classes), size=min(9.0, 0.8 * cell_points))
    if num_classes <= MAX_COUNTED:
        axes.set_xticks(np.arange(num_classes + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(num_classes + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)
        _write_counts(axes, confusions, shares, size=min(10.0, 0.34 * cell_points))
    return figure


def _paint_confusions(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the colours of the cells (K, K, 3): white to blue on the diagonal, else to red."""
    paper, right, wrong = (np.array(mpl.colors.to_rgb(c)) for c in ("#f5f6f9", COBALT, RUBY))
    diagonal = np.eye(len(shares), dtype=bool)
    strength = np.where(diagonal, shares, np.sqrt(shares))[..., None]
    color = np.where(diagonal[..., None], right, wrong)
    painted: NDArray[np.float64] = paper * (1 - strength) + color * strength
    return painted


def _write_class_ticks(axes: Axes, labels: Sequence[str], *, size: float) -> None:
    """Label both axes with the classes, or a subset of them if there are too many."""
    stride = 1 if len(labels) <= MAX_NAMED else 10 if len(labels) <= 150 else 20
    ticks = list(range(0, len(labels), stride))
    shown = [labels[tick] for tick in ticks]
    flat = len(labels) <= 3
    angle = 0 if flat or stride > 1 else 45 if len(labels) <= 12 else 90
    size = 9.0 if stride > 1 else size
    axes.set_xticks(ticks, shown, fontsize=size, rotation=angle, rotation_mode="anchor")
    axes.set_yticks(ticks, shown, fontsize=size)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("center" if angle == 0 else "right")
        label.set_verticalalignment("center" if angle == 90 else "top")


def _write_counts(
    axes: Axes, confusions: NDArray[np.int64], shares: NDArray[np.float64], *, size: float
) -> None:
    """Write the nonzero counts into their cells."""
    for true, predicted in np.argwhere(confusions).tolist():
        share = shares[true, predicted]
        strong = share > (0.5 if true == predicted else 0.4)
        color = "white" if strong else INK
        text = str(confusions[true, predicted])
        axes.text(predicted, true, text, color=color, fontsize=size, ha="center", va="center")


@mpl.rc_context(STYLE)
def draw_reliability(
    calibration: Calibration, *, right: str = "right", counted: str = "images"
) -> Figure:
    """Draw the reliability diagram: accuracy over confidence, and the number of images per bin.

    Args:
        calibration: the data to draw.
        right: label of the accuracy.
        counted: label of the counts.
    """
    figure = Figure(figsize=(4.6, 5.4), layout="constrained")
    axes, count_axes = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    num_bins = len(calibration.counts)
    width = 100 / num_bins
    centers = (np.arange(num_bins) + 0.5) * width
    filled = calibration.counts > 0
    accuracy = 100 * calibration.accuracy[filled]
    gap = 100 * calibration.confidence[filled] - accuracy
    bars: dict[str, Any] = {"width": 0.92 * width, "zorder": 2}
    axes.bar(centers[filled], accuracy, color=COBALT, label=right, **bars)
    gaps: dict[str, Any] = {"bottom": accuracy, **bars}
    axes.bar(centers[filled], np.maximum(gap, 0), color="#e9a3af", label="too sure", **gaps)
    axes.bar(centers[filled], np.minimum(gap, 0), color="#7fd0b4", label="too modest", **gaps)
    axes.plot([0, 100], [0, 100], "--", color=INK, lw=1, label="as stated", zorder=3)
    axes.set(xlim=(0, 100), ylim=(0, 100), ylabel=f"{right} (%)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    count_axes.bar(centers, calibration.counts, color=MUTED, **bars)
    count_axes.set(xlabel="confidence of the prediction (%)", ylabel=counted)
    return figure
