"""What an image looks like, whatever its file: a hash that small changes leave almost alone.

Resizing, new compression, and other brightness or contrast change few of its 64 bits.
"""

import numpy as np
from PIL import Image

_SIDE = 32
_KEPT = 8
_MOST = 256
# DCT-II of 32 values; scale does not matter.
_ANGLES = np.pi / (2 * _SIDE) * np.outer(np.arange(_KEPT), 2 * np.arange(_SIDE) + 1)
_COSINES = np.cos(_ANGLES).astype(np.float32)


def visual_hash(pixels: np.ndarray) -> str:
    """Return the visual hash of pixels (H, W, C) of any type: 16 hex digits; "" of a flat grey.

    Each bit says whether one of the 8 x 8 lowest frequencies is above their median (pHash: Zauner,
    "Implementation and benchmarking of perceptual image hash functions", 2010, section 3.2.2).
    """
    grey = thumbnail(pixels)
    if grey.min() == grey.max():
        return ""
    frequencies = (_COSINES @ grey @ _COSINES.T).ravel()
    bits = frequencies > np.median(frequencies[1:])
    return np.packbits(bits).tobytes().hex()


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Return pixels (H, W, C) of any type as a grey image (32, 32) float32."""
    step = max(1, min(pixels.shape[:2]) // _MOST)
    grey = _grey(pixels[::step, ::step])
    return np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), np.float32)


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of two thumbnails, 1 for equal ones of any brightness and contrast."""
    first, second = (own.ravel() - own.mean() for own in (first, second))
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norm if norm else 0.0


def _grey(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
    return Image.fromarray(pixels.mean(axis=2, dtype=np.float32))
