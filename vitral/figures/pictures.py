"""Pictures with the attention of the model drawn over them."""

import io

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

PICTURE_SIZE = 192
"""Pixels of the longer side of a drawn picture."""
STRENGTH = 0.72
"""Share of the heat's colour where attention is strongest."""


def to_picture(image_hwc: NDArray[np.uint8], *, size: int = PICTURE_SIZE) -> Image.Image:
    """Make an RGB picture of (h, w, C) uint8 values, its longer side sized to be looked at.

    One or two channels are shown as grey (the first), of more than three the first three. Small
    images keep their square pixels.
    """
    channels = image_hwc[..., :3] if image_hwc.shape[-1] >= 3 else image_hwc[..., :1].repeat(3, -1)
    picture = Image.fromarray(np.ascontiguousarray(channels), mode=None)
    scale = size / max(picture.size)
    wanted = (max(1, round(scale * picture.width)), max(1, round(scale * picture.height)))
    method = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    return picture.resize(wanted, method)


def overlay_attention(picture: Image.Image, attention: NDArray[np.floating]) -> Image.Image:
    """Draw attention over a picture: the more of it, the brighter and the more opaque the heat.

    Args:
        picture: RGB.
        attention: (grid_h, grid_w), not negative; spread from its least to its largest value. A
            constant attention draws nothing.
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
