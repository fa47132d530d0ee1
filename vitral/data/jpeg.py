"""JPEG by libjpeg-turbo: the same pixels as Pillow, faster; optionally decoded smaller."""

import threading
from collections.abc import Callable

import numpy as np

try:
    import simplejpeg
except ImportError:  # no wheel for this platform: Pillow gives the same pixels, more slowly
    simplejpeg = None

REDUCTIONS = (1, 2, 4, 8)
"""Sides are divided by one of these: libjpeg's other eighths take longer than the next one."""
Reduce = Callable[[tuple[int, int]], int]
"""From height and width as shown to the reduction that is wanted."""
ORIENTATIONS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
"""EXIF's orientations of pixels (H, W, C), as views, of which only the crop is copied."""
_MAX_SCRATCH_BYTES = 2**27  # 44 megapixels
_START = b"\xff\xd8\xff"
_EXIF_OR_XMP, _FIRST_SCAN = 0xE1, 0xDA
_SEGMENTS = frozenset(range(0xC0, 0xFF)) - frozenset(range(0xD0, 0xDA))
"""Markers that a length follows."""
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive


class Scratch(threading.local):
    """Memory that images are decoded into, one after the other; each thread has its own.

    To be given new memory by the system takes a quarter of the time of a photo of 12 megapixels.
    """

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def reserve(self, num_bytes: int) -> np.ndarray:
        """Return memory of at least this size; what was in it is lost."""
        if num_bytes > _MAX_SCRATCH_BYTES:
            return np.empty(num_bytes, np.uint8)
        if len(self._memory) < num_bytes:
            self._memory = np.empty(num_bytes, np.uint8)
        return self._memory


def plain_size(content: bytes, *, channels: int) -> tuple[int, int] | None:
    """Return height and width of a JPEG that needs neither rotation nor other colours.

    Args:
        content: the bytes of a file.
        channels: that are wanted.

    Returns:
        None for all else: without EXIF, XMP or CMYK, Pillow need not open the file, which takes
        ten times as long and holds Python's lock.
    """
    if simplejpeg is None or not content.startswith(_START):
        return None
    frame = _plain_frame(content)
    is_plain = frame is not None and channels in (1, 3) and frame[2] == channels and all(frame)
    return frame[:2] if frame and is_plain else None


def decode_stored(
    content: bytes,
    size: tuple[int, int],
    *,
    channels: int,
    reduction: int = 1,
    scratch: Scratch | None = None,
) -> np.ndarray | None:
    """Decode a JPEG as it is stored, without rotation.

    Args:
        content: the bytes of a file.
        size: height and width that its header states.
        channels: 1: grey, 3: RGB.
        reduction: by which both sides are divided, rounded up.
        scratch: memory that holds the pixels until its next use; None: new memory.

    Returns:
        (h, w, channels) uint8; None where libjpeg-turbo complains and Pillow must decide.
    """
    if simplejpeg is None:
        return None
    height, width = (-(-side // reduction) for side in size)
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            content,
            "GRAY" if channels == 1 else "RGB",
            min_height=height,
            min_width=width,
            min_factor=reduction,
            buffer=scratch and scratch.reserve(height * width * channels),
        )
    except ValueError:
        return None
    return pixels


def decode_whole(content: bytes) -> np.ndarray | None:
    """Decode a JPEG whole and do nothing else: the limit that loading is measured against.

    Returns:
        (H, W, 3) uint8 as stored; None of other files, and without libjpeg-turbo.
    """
    if simplejpeg is None or not content.startswith(_START):
        return None
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(content, "RGB")
    except ValueError:
        return None
    return pixels


def _plain_frame(content: bytes) -> tuple[int, int, int] | None:
    """Return height, width and channels that the segments before the first scan state.

    None where EXIF or XMP stand among them, they are out of order, or the frame is of a rare kind.
    """
    offset, frame = 2, None
    while content[offset : offset + 1] == b"\xff" and len(content) > offset + 9:
        marker = content[offset + 1]
        if marker == _FIRST_SCAN:
            return frame
        if marker == _EXIF_OR_XMP or marker not in _SEGMENTS:
            return None
        if marker in _FRAMES:
            height = int.from_bytes(content[offset + 5 : offset + 7])
            width = int.from_bytes(content[offset + 7 : offset + 9])
            frame = (height, width, content[offset + 9])
        offset += 2 + int.from_bytes(content[offset + 2 : offset + 4])
    return None
