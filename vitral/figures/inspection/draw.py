"""Every figure of an inspection, as PNG and SVG, from its arrays."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from vitral.errors import RequestError
from vitral.figures.inspection.inspected import (
    ARRAYS_NAME,
    Inspected,
    compared_paths,
    read_inspected,
)
from vitral.figures.inspection.overlays import (
    draw_features,
    draw_heads,
    draw_occlusion,
    draw_rollouts,
    remove_axes,
    rescale,
    tile_centres,
    tiled,
)
from vitral.figures.plots import INK, MUTED, STYLE, save_figure

FILTER_COLUMNS, MAX_FILTER_ROWS = 7, 12
"""Filters per row, as in the paper; maximum number of rows for a model of many channels."""
MAX_FILTER_CHANNELS = 16


@mpl.rc_context(STYLE)
def draw_filters(model: Inspected) -> Figure:
    """Draw the principal components of the filters (Figure 7, left).

    Each is scaled to the whole range separately, so brightness is not comparable across filters.
    Three channels are drawn as colours, one as grey; with other numbers each component is a row and
    each channel a column.
    """
    components = model["filters/components"]
    channels = components.shape[-1]
    if channels not in (1, 3):
        components = components[:MAX_FILTER_ROWS, ..., :MAX_FILTER_CHANNELS]
    figure = Figure(figsize=(5.6, 3.6 if channels in (1, 3) else 5.6), layout="constrained")
    axes = figure.subplots()
    if channels in (1, 3):
        _draw_sheet(axes, rescale(components), FILTER_COLUMNS)
    else:
        _draw_channels(axes, components)
    share = 100 * model["filters/shares"][: len(components)].sum()
    kind = "RGB embedding filters" if channels == 3 else "Embedding filters"
    axes.set_title(f"{kind} of {model.title}\n(first {len(components)} principal components)")
    shown = (
        f", {MAX_FILTER_CHANNELS} of {channels} channels" if channels > MAX_FILTER_CHANNELS else ""
    )
    axes.set_xlabel(f"{share:.0f} % of the filters' variance{shown}", color=MUTED)
    return figure


def _draw_sheet(axes: Axes, pictures: np.ndarray, columns: int) -> None:
    """Draw pictures (M, h, w, 1 or 3) as a grid without axes."""
    side = pictures.shape[1]
    sheet = tiled(pictures.repeat(3 // pictures.shape[-1], axis=-1), columns, gap=max(1, side // 8))
    axes.imshow(np.where(np.isnan(sheet), 1.0, sheet), interpolation="nearest")
    remove_axes(axes)


def _draw_channels(axes: Axes, components: np.ndarray) -> None:
    """Draw each component as a row of its channels in grey, where mid-grey is 0."""
    rows, height, width, channels = components.shape
    largest = np.abs(components).reshape(rows, -1).max(axis=1)[:, None, None, None]
    pictures = (0.5 + 0.5 * components / np.maximum(largest, 1e-30)).transpose(0, 3, 1, 2)
    gap = max(1, height // 8)
    sheet = tiled(pictures.reshape(-1, height, width), channels, gap=gap)
    axes.imshow(np.where(np.isnan(sheet), 1.0, sheet), cmap="gray", vmin=0, vmax=1)
    remove_axes(axes)
    axes.set_xticks(tile_centres(channels, width, gap=gap), [str(n) for n in range(channels)])
    axes.set_yticks(tile_centres(rows, height, gap=gap), [str(n + 1) for n in range(rows)])
    axes.set_ylabel("component")
    axes.xaxis.tick_top()


POSITION_MEASURES = {"relative": "similarity to the key of no offset"}
MAX_TICKS = 8


@mpl.rc_context(STYLE)
def draw_positions(models: Sequence[Inspected]) -> Figure:
    """Draw a grid of tiles for each model, side by side: tile r, c is the map of patch r, c."""
    rows, columns = models[0]["positions/similarity"].shape[:2]
    height = 4.4 * min(1.6, max(0.5, (rows / columns) ** 2))
    figure = Figure(figsize=(4.4 * len(models) + 1.0, height + 0.6), layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    drawn = [
        _draw_model(axes, model, model.title_among(models))
        for axes, model in zip(panels, models, strict=True)
    ]
    kinds = {model.about["position"] for model in models}
    measure = (
        POSITION_MEASURES.get(kinds.pop(), "cosine similarity") if len(kinds) == 1 else "similarity"
    )
    bar = figure.colorbar(drawn[-1], ax=list(panels), shrink=0.85, label=measure)
    bar.outline.set_visible(False)
    return figure


def _draw_model(axes: Axes, model: Inspected, title: str) -> AxesImage:
    similarity = model["positions/similarity"]
    rows, columns = similarity.shape[:2]
    gap = max(1, round(max(rows, columns) / 10))
    sheet = tiled(similarity.reshape(rows * columns, rows, columns), columns, gap=gap)
    image = axes.imshow(
        np.ma.masked_invalid(sheet), vmin=-1, vmax=1, cmap="viridis", interpolation="nearest"
    )
    remove_axes(axes)
    for count, set_ticks in ((columns, axes.set_xticks), (rows, axes.set_yticks)):
        step = -(-count // MAX_TICKS)
        centres = tile_centres(count, count, gap=gap)[::step]
        set_ticks(centres, [str(1 + step * number) for number in range(len(centres))])
    axes.tick_params(length=0, colors=INK)
    axes.set_xlabel("input patch column")
    axes.set_ylabel("input patch row")
    axes.set_title(title)
    return image


DEPTH_MEASURES = {
    "distances": "mean attention distance (pixels)",
    "entropies": "attention entropy (nats)",
}


@mpl.rc_context(STYLE)
def draw_by_depth(models: Sequence[Inspected], measure: str) -> Figure:
    """Draw one dot per head over the depth of the network, with one panel per model.

    Args:
        models: with measured attention; drawn side by side on one scale.
        measure: "distances" or "entropies".
    """
    figure = Figure(figsize=(3.9 * len(models) + 0.6, 3.6), layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False, sharey=True)[0]
    for axes, model in zip(panels, models, strict=True):
        _draw_heads(axes, model, measure, title=model.title_among(models))
    panels[0].set_ylabel(DEPTH_MEASURES[measure])
    panels[0].set_ylim(bottom=0)
    return figure


def _draw_heads(axes: Axes, model: Inspected, measure: str, *, title: str) -> None:
    values = model[f"reach/{measure}"]
    layers, heads = values.shape
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.95, heads))
    size = 22 if layers * heads <= 200 else 12
    for head in range(heads):
        axes.scatter(
            np.arange(layers), values[:, head], s=size, color=colors[head], lw=0, zorder=2,
            label=f"head {head}" if head in (0, heads - 1) else None,
        )  # fmt: skip
    axes.plot(values.mean(axis=1), color=INK, lw=0.9, alpha=0.6, zorder=1, label="mean")
    names = [str(name) for name in model["reach/layers"]]
    is_axial = any(name.endswith("row_attention") for name in names)
    axes.set_xlabel("network depth (rows, columns)" if is_axial else "network depth (layer)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    images = int(model["reach/num_images"])
    noun = "image" if images == 1 else "images"
    axes.set_title(f"{title}, mean over {images} {noun}")
    axes.legend(loc="lower right", fontsize=8, labelcolor=MUTED, handletextpad=0.2)


# Each figure with the name of the array that it needs.
OF_ONE: dict[str, tuple[str, Callable[[Inspected], Figure]]] = {
    "rollout": ("attention/rollouts", draw_rollouts),
    "heads": ("attention/of_pool", draw_heads),
    "occlusion": ("occlusion/fall", draw_occlusion),
    "features": ("features/colors", draw_features),
    "filters": ("filters/components", draw_filters),
}
OF_SEVERAL: dict[str, tuple[str, Callable[[Sequence[Inspected]], Figure]]] = {
    "positions": ("positions/similarity", draw_positions),
    "distance": ("reach/distances", lambda models: draw_by_depth(models, "distances")),
    "entropy": ("reach/entropies", lambda models: draw_by_depth(models, "entropies")),
}
ENDINGS = ("png", "svg")
PAGE_NAME = "inspect.html"


def check_folder(folder: Path) -> None:
    """Check that no file that is not from `vitral inspect` would be overwritten in a folder.

    Raises:
        RequestError: it is a file, or has a file of an output's name without an inspection.
    """
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder} is a file: name a folder")
    if (folder / ARRAYS_NAME).exists():
        read_inspected(folder)
        return
    for path in [*_written(folder), folder / PAGE_NAME]:
        if path.exists():
            raise RequestError(
                f"{path} was not written by `vitral inspect`, which would replace it: name another "
                "folder"
            )


def remove_figures(folder: Path) -> None:
    """Remove the figures and the compared models of an earlier inspection from a folder."""
    for path in _written(folder):
        path.unlink(missing_ok=True)


def _written(folder: Path) -> list[Path]:
    names = [f"{name}.{ending}" for name in (*OF_ONE, *OF_SEVERAL) for ending in ENDINGS]
    return [*(folder / name for name in names), *compared_paths(folder)]


def draw_folder(folder: Path) -> list[str]:
    """Draw all figures of the arrays in a folder, including those of compared models.

    Returns:
        The names of the figures.

    Raises:
        RequestError: there are no arrays of `vitral inspect`.
    """
    beside = [read_inspected(path) for path in compared_paths(folder)]
    return draw_figures(read_inspected(folder), folder, beside=beside)


def draw_figures(model: Inspected, folder: Path, *, beside: Sequence[Inspected] = ()) -> list[str]:
    """Draw all figures that a model's arrays allow.

    Args:
        model: its measurements.
        folder: receives NAME.png and NAME.svg of each figure.
        beside: other models, drawn next to it if they have the same arrays.

    Returns:
        The names of the figures.
    """
    drawn = []
    for name, (needed, draw) in OF_ONE.items():
        if needed in model:
            _save(draw(model), folder, name)
            drawn.append(name)
    for name, (needed, draw_several) in OF_SEVERAL.items():
        models = [candidate for candidate in (model, *beside) if needed in candidate]
        if models:
            _save(draw_several(models), folder, name)
            drawn.append(name)
    return drawn


def _save(figure: Figure, folder: Path, name: str) -> None:
    for ending in ENDINGS:
        save_figure(figure, folder / f"{name}.{ending}")
