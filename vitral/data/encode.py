"""From an image, as a source holds it, to the bytes of a file."""

import io

import numpy as np
from PIL import Image

from vitral.data.decode import decode_image
from vitral.data.finding import Finding
from vitral.data.kinds import SUFFIXES
from vitral.data.resize import resize
from vitral.data.stores.store import Content
from vitral.spec.preprocessing import default_preprocessing

_SHRUNK_MODES = {"1": 1, "L": 1, "RGB": 3, "CMYK": 3, "YCbCr": 3}
"""Channels by mode of the files that may become JPEG: without transparency or palette."""


def as_file(content: Content) -> bytes:
    """Return a file's bytes as they are, pixels as those of a `.npy`."""
    if isinstance(content, bytes):
        return content
    file = io.BytesIO()
    np.save(file, content, allow_pickle=False)
    return file.getvalue()


def suffix_of(finding: Finding) -> str:
    """Return the usual ending of a file's kind."""
    return SUFFIXES.get(finding.format, SUFFIXES["NumPy"])[0]


def is_shrunk(finding: Finding, *, shorter: int) -> bool:
    """Say whether a file is larger than wanted, and can lose pixels without losing its kind."""
    is_larger = min(finding.height, finding.width) > shorter
    is_picture = finding.format != "array" and finding.mode in _SHRUNK_MODES
    return is_larger and is_picture and not finding.is_deep


def shrink(content: bytes, finding: Finding, *, shorter: int, quality: int) -> bytes:
    """Shrink a picture to a shorter side and encode it as JPEG, grey ones as grey.

    Args:
        content: of a file for which `is_shrunk`.
        finding: of it.
        shorter: pixels.
        quality: 1 to 100; chroma is 4:2:0.
    """
    channels = _SHRUNK_MODES[finding.mode]
    pixels = decode_image(content, channels=channels)
    height, width = pixels.shape[:2]
    scale = shorter / min(height, width)
    size = (max(shorter, round(height * scale)), max(shorter, round(width * scale)))
    how = default_preprocessing(size, channels=channels, interpolation="bicubic")
    return encode_jpeg(resize(pixels, size, how), quality=quality)


def encode_jpeg(pixels: np.ndarray, *, quality: int) -> bytes:
    """Encode grey (H, W, 1) or RGB (H, W, 3) uint8 as JPEG, chroma 4:2:0."""
    # Pillow's own settings lose less than those of simplejpeg, whose transform is the fast one.
    file = io.BytesIO()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()
