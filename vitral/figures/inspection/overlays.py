"""Overlays of maps on images (Figures 6 and 14 and similar ones), as one grid of pictures."""

from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from vitral.figures.inspection.inspected import Inspected
from vitral.figures.pictures import overlay_attention, to_picture
from vitral.figures.plots import INK, MUTED, STYLE, drawable

PIXELS = 320
"""Longer side of a picture in a figure."""
MAX_ROWS, MAX_HEADS = 16, 16
"""Maximum numbers of images and heads in a figure."""
Map = NDArray[np.floating]
Draw = Callable[[Image.Image, Map], Image.Image]


def brighten_by_attention(picture: Image.Image, attention: Map) -> Image.Image:
    """Scale the brightness of a picture by attention, as in the paper's Figure 6.

    Args:
        picture: RGB.
        attention: (rows, columns), not negative, over the whole picture.

    Source: the figure's author in issue 27 of the official repository: the map divided by its
    maximum, resized with Lanczos, blurred by the size of a patch, scaled to the range 0..1, and
    used as opacity over black.
    """
    largest = float(attention.max())
    share = attention / largest if largest > 0 else np.ones_like(attention)
    levels = Image.fromarray(np.round(255 * share).astype(np.uint8))
    levels = levels.resize(picture.size, Image.Resampling.LANCZOS)
    radius = picture.width / attention.shape[1]
    opacity = np.asarray(levels.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)
    span = float(opacity.max() - opacity.min())
    opacity = (opacity - opacity.min()) / span if span > 0 else np.ones_like(opacity)
    lit = np.asarray(picture, dtype=np.float32) * opacity[..., None]
    return Image.fromarray(np.round(lit).astype(np.uint8))


def coloured_fall(picture: Image.Image, fall: Map) -> Image.Image:
    """Overlay a map of the fall in probability: red where it falls, blue where it rises."""
    largest = max(float(np.abs(fall).max()), 1e-12)
    levels = Image.fromarray((fall / largest).astype(np.float32))
    level = np.asarray(levels.resize(picture.size, Image.Resampling.NEAREST))
    colors = mpl.colormaps["RdBu_r"](0.5 + 0.5 * level)[..., :3]
    grey = np.asarray(picture.convert("L").convert("RGB"), dtype=np.float32) / 255
    opacity = 0.75 * np.sqrt(np.abs(level))[..., None]
    mixed = (1 - opacity) * grey + opacity * colors
    return Image.fromarray(np.round(255 * mixed).astype(np.uint8))


def coloured(picture: Image.Image, colors: Map) -> Image.Image:
    """Draw colours (rows, columns, 3) in 0..1 in place of the picture."""
    levels = Image.fromarray(np.round(255 * colors).astype(np.uint8))
    return levels.resize(picture.size, Image.Resampling.NEAREST)


def over(
    picture: Image.Image, values: Map, draw: Draw, *, covered: tuple[float, float]
) -> Image.Image:
    """Draw a map over the part of a picture that its grid covers; the rest is unchanged.

    Args:
        picture: RGB.
        values: (rows, columns, ...).
        draw: draws a map over a whole picture.
        covered: shares of the picture's height and width; above 1 the last cells are cropped.
    """
    height, width = (
        round(share * side) for share, side in zip(covered, picture.size[::-1], strict=True)
    )
    # Cells may extend beyond the picture: extend it, and crop it afterwards.
    whole = Image.new("RGB", (max(width, picture.width), max(height, picture.height)))
    whole.paste(picture)
    whole.paste(draw(whole.crop((0, 0, width, height)), values))
    return whole.crop((0, 0, *picture.size))


def draw_rollouts(model: Inspected) -> Figure:
    """Draw each image, with brightness by rollout, and with a heat map of it (Figures 6, 14)."""
    maps = model["attention/rollouts"][:, -1]
    columns = [("attention", maps, brighten_by_attention), ("as heat", maps, overlay_attention)]
    return _gallery(model, columns)


def draw_occlusion(model: Inspected) -> Figure:
    """Draw each image, and how much blanking each part lowers the class's probability."""
    falls = model["occlusion/fall"]
    says = [
        f"{drawable(str(name))}\nfalls by up to {100 * max(0.0, float(fall.max())):.1f} points"
        for name, fall in zip(model["occlusion/classes"], falls, strict=True)
    ]
    columns = [("blanked: red lowers the probability", falls, coloured_fall)]
    return _gallery(model, columns, says=says, grid="occlusion")


def draw_features(model: Inspected) -> Figure:
    """Draw the patches' features as colours: their first three principal components."""
    return _gallery(model, [("features", model["features/colors"], coloured)])


def draw_heads(model: Inspected) -> Figure:
    """Draw each attention head's map, from the input of the model's head to the patches."""
    heads = model["attention/of_pool"]
    shown = min(heads.shape[1], MAX_HEADS)
    columns = [(f"head {n}", heads[:, n], overlay_attention) for n in range(shown)]
    left_out = f"heads 0 to {shown - 1} of {heads.shape[1]}" if shown < heads.shape[1] else ""
    return _gallery(model, columns, note=left_out)


@mpl.rc_context(STYLE)
def _gallery(
    model: Inspected,
    columns: Sequence[tuple[str, Map, Draw]],
    *,
    says: Sequence[str] | None = None,
    grid: str = "patches",
    note: str = "",
) -> Figure:
    """Draw one row of pictures per image, with its prediction, as one grid.

    Args:
        model: with the images.
        columns: after the image itself: title, one map per image, and how to draw it.
        says: text for each image; None: the model's prediction.
        grid: of the maps, "patches" or "occlusion".
        note: what is left out.
    """
    count = min(model.num_images, MAX_ROWS)
    size = PIXELS if len(columns) <= 3 else PIXELS // 2
    covered = model.covered(grid)
    pictures = []
    for number in range(count):
        picture = to_picture(model["images/pictures"][number], size=size)
        drawn = [over(picture, maps[number], draw, covered=covered) for _, maps, draw in columns]
        pictures += [np.asarray(image, dtype=np.float64) / 255 for image in (picture, *drawn)]
    height, width = pictures[0].shape[:2]
    gap = max(2, width // 20)
    sheet = tiled(np.stack(pictures), 1 + len(columns), gap=gap)
    side = 1.7 if len(columns) <= 3 else 1.0
    shape = (side * (1 + len(columns)) + 1.6, side * height / width * count + 0.5)
    figure = Figure(figsize=shape, layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.where(np.isnan(sheet), 1.0, sheet))
    remove_axes(axes)
    titles = ["input", *(title for title, _, _ in columns)]
    axes.set_xticks(tile_centres(len(titles), width, gap=gap), titles)
    axes.set_yticks(tile_centres(count, height, gap=gap), says or answers(model)[:count])
    axes.xaxis.tick_top()
    axes.yaxis.tick_right()
    axes.tick_params(axis="y", colors=MUTED, labelsize=8)
    if model.num_images > count:
        note = f"{note}, " * bool(note) + f"the first {count} of {model.num_images} images"
    if note:
        axes.set_xlabel(note, color=MUTED)
    return figure


def answers(model: Inspected) -> list[str]:
    """Return the prediction for each image as text; its name if the model has no classes."""
    if "images/top_classes" not in model:
        return [drawable(str(name)) for name in model["images/names"]]
    names, shares = model["images/top_classes"][:, 0], model["images/top_probabilities"][:, 0]
    return [
        f"{drawable(str(name))}\n{100 * share:.1f} %"
        for name, share in zip(names, shares.tolist(), strict=True)
    ]


def tiled(pictures: NDArray[np.floating], columns: int, *, gap: int = 1) -> NDArray[np.float64]:
    """Arrange pictures (M, h, w, ...) in a grid, row by row; gaps and the rest are NaN."""
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
    """Return the centres of tiles along an axis of the grid."""
    centres: NDArray[np.float64] = (
        np.arange(count, dtype=np.float64) * (side + gap) + (side - 1) / 2
    )
    return centres


def remove_axes(axes: Axes) -> None:
    """Remove everything but the picture."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK)
    axes.set_xticks([])
    axes.set_yticks([])


def rescale(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scale each of (M, ...) from its minimum and maximum to 0..1; a constant one is 0.5."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    low, high = flat.min(axis=1, keepdims=True), flat.max(axis=1, keepdims=True)
    span = high - low
    scaled: NDArray[np.float64] = np.where(span > 0, flat - low, 0.5)
    scaled /= np.where(span > 0, span, 1)
    return scaled.reshape(values.shape)
