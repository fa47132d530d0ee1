"""Pictures for pages: images with attention overlays, and the stained-glass banner."""

import io
import random
import zlib

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.figures.html import Html, element

PICTURE_SIZE = 192
"""Longer side of a picture, pixels."""
STRENGTH = 0.72
"""Opacity of the heat map where attention is strongest."""


def to_picture(image_hwc: NDArray[np.uint8], *, size: int = PICTURE_SIZE) -> Image.Image:
    """Return an RGB picture of (h, w, C) uint8 values whose longer side is `size`.

    Of one or two channels the first is shown as grey, of three or more the first three. Small
    images are enlarged with nearest-neighbour interpolation.
    """
    channels = image_hwc[..., :3] if image_hwc.shape[-1] >= 3 else image_hwc[..., :1].repeat(3, -1)
    picture = Image.fromarray(np.ascontiguousarray(channels), mode=None)
    scale = size / max(picture.size)
    new_size = (max(1, round(scale * picture.width)), max(1, round(scale * picture.height)))
    method = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    return picture.resize(new_size, method)


def overlay_attention(picture: Image.Image, attention: NDArray[np.floating]) -> Image.Image:
    """Overlay a picture with a heat map of attention, whose brightness and opacity grow with it.

    Args:
        picture: RGB.
        attention: (grid_h, grid_w), not negative; scaled from its minimum to its maximum. Constant
            attention draws nothing.
    """
    heat = np.asarray(attention, dtype=np.float32)
    span = float(heat.max() - heat.min())
    heat = (heat - heat.min()) / span if span > 0 else np.zeros_like(heat)
    smooth = Image.fromarray(heat).resize(picture.size, Image.Resampling.BILINEAR)
    level = np.clip(np.asarray(smooth), 0, 1)
    colors = mpl.colormaps["inferno"](0.25 + 0.7 * level)[..., :3]
    grey = np.asarray(picture.convert("L").convert("RGB"), dtype=np.float32) / 255
    opacity = STRENGTH * np.sqrt(level)[..., None]
    mixed = (1 - opacity) * grey + opacity * colors
    return Image.fromarray(np.round(255 * np.clip(mixed, 0, 1)).astype(np.uint8))


def to_png(picture: Image.Image) -> bytes:
    """Encode a picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


COLORS = (
    ("#1b3f9c", "#2450b8", "#3f72d8", "#7fa6ee"),
    ("#7d1530", "#b4233f", "#d5455a"),
    ("#b86f00", "#e09a12", "#f3bf4b", "#f8dd94"),
    ("#0e5f47", "#14805e", "#3aa880"),
    ("#4b2a86", "#6f45b5", "#a384dc"),
)
WEIGHTS = (5, 2, 3, 2, 2)
COLUMNS, ROWS = 40, 3
WIDTH, HEIGHT = 1600, 96


def draw_window(seed: str) -> Html:
    """Draw the stained-glass banner as an SVG element, determined by the seed."""
    draw = random.Random(zlib.crc32(seed.encode("utf-8", "backslashreplace")))
    corners = {
        (column, row): _corner(column, row, draw)
        for column in range(COLUMNS + 1)
        for row in range(ROWS + 1)
    }
    panes = []
    for column in range(COLUMNS):
        for row in range(ROWS):
            square = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)]
            points = [corners[corner] for corner in square]
            for pane in _cut(points, draw):
                shades = draw.choices(COLORS, WEIGHTS)[0]
                outline = " ".join(f"{x:.0f},{y:.0f}" for x, y in pane)
                panes.append(element("polygon", points=outline, fill=draw.choice(shades)))
    return element(
        "svg",
        *panes,
        class_="window",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="xMidYMid slice",
        aria_hidden="true",
    )


def _corner(column: int, row: int, draw: random.Random) -> tuple[float, float]:
    """Return a corner near its grid point; corners on the border stay on it."""
    x, y = column * WIDTH / COLUMNS, row * HEIGHT / ROWS
    dx, dy = draw.uniform(-13, 13), draw.uniform(-10, 10)
    return (x + dx if 0 < column < COLUMNS else x, y + dy if 0 < row < ROWS else y)


def _cut(points: list[tuple[float, float]], draw: random.Random) -> list[list[tuple[float, float]]]:
    """Return a pane whole, or cut along one of its diagonals."""
    a, b, c, d = points
    whole = [[a, b, c, d]]
    return draw.choice([whole, [[a, b, c], [a, c, d]], [[a, b, d], [b, c, d]]])
