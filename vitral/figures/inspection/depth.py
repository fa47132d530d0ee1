"""Figures 7 (right) and 11: what each head's attention does, by depth."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitral.figures.inspection.inspected import Inspected
from vitral.figures.plots import INK, MUTED, STYLE

MEASURES = {
    "distances": "mean attention distance (pixels)",
    "entropies": "attention entropy (nats)",
}


@mpl.rc_context(STYLE)
def draw_by_depth(models: Sequence[Inspected], measure: str) -> Figure:
    """Draw one dot a head over the depth of the network, a panel a model.

    Args:
        models: whose attention was measured, side by side on one scale.
        measure: "distances" or "entropies".
    """
    figure = Figure(figsize=(3.9 * len(models) + 0.6, 3.6), layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False, sharey=True)[0]
    for axes, model in zip(panels, models, strict=True):
        _draw(axes, model, measure, title=model.title_among(models))
    panels[0].set_ylabel(MEASURES[measure])
    panels[0].set_ylim(bottom=0)
    return figure


def _draw(axes: Axes, model: Inspected, measure: str, *, title: str) -> None:
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
