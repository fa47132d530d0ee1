"""Many small pictures as one: side by side, with lines of paper between them."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from vitral.figures.plots import INK


def tiled(pictures: NDArray[np.floating], columns: int, *, gap: int = 1) -> NDArray[np.float64]:
    """Put pictures (M, h, w, ...) row by row into one; what is between and left over is NaN."""
    height, width = pictures.shape[1:3]
    rows = -(-len(pictures) // columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, *pictures.shape[3:])
    sheet: NDArray[np.float64] = np.full(shape, np.nan)
    for number, picture in enumerate(pictures):
        top = number // columns * (height + gap)
        left = number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def tile_centres(count: int, side: int, *, gap: int = 1) -> NDArray[np.float64]:
    """Return where the centres of tiles lie along an axis of the sheet."""
    centres: NDArray[np.float64] = (
        np.arange(count, dtype=np.float64) * (side + gap) + (side - 1) / 2
    )
    return centres


def bare(axes: Axes) -> None:
    """Take away all that is not the picture."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK)
    axes.set_xticks([])
    axes.set_yticks([])


def spread(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Spread each of (M, ...) from its least to its largest value over 0..1; a flat one is 0.5."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    low, high = flat.min(axis=1, keepdims=True), flat.max(axis=1, keepdims=True)
    span = high - low
    scaled: NDArray[np.float64] = np.where(span > 0, flat - low, 0.5)
    scaled /= np.where(span > 0, span, 1)
    return scaled.reshape(values.shape)
