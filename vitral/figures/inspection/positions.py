"""Figures 7 (centre) and 10: how alike the position embeddings of any two patches are."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from vitral.figures.inspection.inspected import Inspected
from vitral.figures.inspection.tiles import bare, tile_centres, tiled
from vitral.figures.plots import INK, STYLE

MEASURE = {"relative": "similarity to the key of no offset"}
MAX_TICKS = 8


@mpl.rc_context(STYLE)
def draw_positions(models: Sequence[Inspected]) -> Figure:
    """Draw a grid of tiles for each model, side by side: tile r, c is the map of patch r, c."""
    rows, columns = models[0]["positions/similarity"].shape[:2]
    height = 4.4 * min(1.6, max(0.5, (rows / columns) ** 2))
    figure = Figure(figsize=(4.4 * len(models) + 1.0, height + 0.6), layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    drawn = [
        _draw(axes, model, model.title_among(models))
        for axes, model in zip(panels, models, strict=True)
    ]
    kinds = {model.about["position"] for model in models}
    measure = MEASURE.get(kinds.pop(), "cosine similarity") if len(kinds) == 1 else "similarity"
    bar = figure.colorbar(drawn[-1], ax=list(panels), shrink=0.85, label=measure)
    bar.outline.set_visible(False)
    return figure


def _draw(axes: Axes, model: Inspected, title: str) -> AxesImage:
    similarity = model["positions/similarity"]
    rows, columns = similarity.shape[:2]
    gap = max(1, round(max(rows, columns) / 10))
    sheet = tiled(similarity.reshape(rows * columns, rows, columns), columns, gap=gap)
    image = axes.imshow(
        np.ma.masked_invalid(sheet), vmin=-1, vmax=1, cmap="viridis", interpolation="nearest"
    )
    bare(axes)
    for count, set_ticks in ((columns, axes.set_xticks), (rows, axes.set_yticks)):
        step = -(-count // MAX_TICKS)
        centres = tile_centres(count, count, gap=gap)[::step]
        set_ticks(centres, [str(1 + step * number) for number in range(len(centres))])
    axes.tick_params(length=0, colors=INK)
    axes.set_xlabel("input patch column")
    axes.set_ylabel("input patch row")
    axes.set_title(title)
    return image
