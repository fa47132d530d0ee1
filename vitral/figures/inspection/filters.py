"""Figure 7, left: the principal components of the filters that see the image."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitral.figures.inspection.inspected import Inspected
from vitral.figures.inspection.tiles import bare, spread, tile_centres, tiled
from vitral.figures.plots import MUTED, STYLE

COLUMNS, MAX_ROWS = 7, 12
"""Filters side by side, as in the paper; rows of a model of many channels."""
MAX_CHANNELS = 16


@mpl.rc_context(STYLE)
def draw_filters(model: Inspected) -> Figure:
    """Draw the components (Figure 7, left).

    Each is spread over the whole range by itself, so brightness says nothing across filters. Those
    of three channels are colours, those of one are grey; of other numbers each component is a row,
    a channel a column.
    """
    components = model["filters/components"]
    channels = components.shape[-1]
    if channels not in (1, 3):
        components = components[:MAX_ROWS, ..., :MAX_CHANNELS]
    figure = Figure(figsize=(5.6, 3.6 if channels in (1, 3) else 5.6), layout="constrained")
    axes = figure.subplots()
    if channels in (1, 3):
        _draw_sheet(axes, spread(components), COLUMNS)
    else:
        _draw_channels(axes, components)
    share = 100 * model["filters/shares"][: len(components)].sum()
    kind = "RGB embedding filters" if channels == 3 else "Embedding filters"
    axes.set_title(f"{kind} of {model.title}\n(first {len(components)} principal components)")
    shown = f", {MAX_CHANNELS} of {channels} channels" if channels > MAX_CHANNELS else ""
    axes.set_xlabel(f"{share:.0f} % of the filters' variance{shown}", color=MUTED)
    return figure


def _draw_sheet(axes: Axes, pictures: np.ndarray, columns: int) -> None:
    """Draw pictures (M, h, w, 1 or 3) as a sheet without axes."""
    side = pictures.shape[1]
    sheet = tiled(pictures.repeat(3 // pictures.shape[-1], axis=-1), columns, gap=max(1, side // 8))
    axes.imshow(np.where(np.isnan(sheet), 1.0, sheet), interpolation="nearest")
    bare(axes)


def _draw_channels(axes: Axes, components: np.ndarray) -> None:
    """Draw each component as a row of its channels, in grey: mid-grey is 0."""
    rows, height, width, channels = components.shape
    largest = np.abs(components).reshape(rows, -1).max(axis=1)[:, None, None, None]
    pictures = (0.5 + 0.5 * components / np.maximum(largest, 1e-30)).transpose(0, 3, 1, 2)
    gap = max(1, height // 8)
    sheet = tiled(pictures.reshape(-1, height, width), channels, gap=gap)
    axes.imshow(np.where(np.isnan(sheet), 1.0, sheet), cmap="gray", vmin=0, vmax=1)
    bare(axes)
    axes.set_xticks(tile_centres(channels, width, gap=gap), [str(n) for n in range(channels)])
    axes.set_yticks(tile_centres(rows, height, gap=gap), [str(n + 1) for n in range(rows)])
    axes.set_ylabel("component")
    axes.xaxis.tick_top()
