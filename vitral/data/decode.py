"""From a file's bytes to pixels: the one decoder that training, evaluation and prediction share.

Read: JPEG, PNG, WebP and BMP of 8 bits a channel. EXIF orientation is applied, palettes and CMYK
become RGB, transparency is composited on white. What is not read rightly yet is refused, never read
wrongly.
"""

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

try:
    import simplejpeg
except ImportError:  # no wheel for this platform: Pillow gives the same pixels, more slowly
    simplejpeg = None

MAX_PIXELS = 178_956_970  # where Pillow takes an image for a decompression bomb
BACKGROUND = (255, 255, 255)
MODE_BY_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib"})
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB")
_UNSUPPORTED_MAGIC = {
    b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000", b"8BPS": "Photoshop",
    b"\x93NUMPY": "NumPy", b"qoif": "QOI", b"v/1\x01": "OpenEXR",
}  # fmt: skip
_ISO_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF", b"avis": "AVIF"}


class UnreadableImageError(Exception):
    """The bytes are damaged or no image; the message says how."""


class UnsupportedImageError(Exception):
    """A kind of image that is not read rightly yet; the message names it."""


@dataclass(frozen=True)
class ImageHeader:
    """What an image's header says, before orientation."""

    format: str
    mode: str
    height: int
    width: int
    turned: bool
    """Whether EXIF says that the picture must be turned or mirrored."""


def decode_image(content: bytes, *, channels: int = 3) -> np.ndarray:
    """Decode an image as a viewer shows it.

    Args:
        content: the bytes of a file.
        channels: 1: grey, 2: grey and alpha, 3: RGB, 4: RGBA.

    Returns:
        Pixels (H, W, channels), uint8.

    Raises:
        UnreadableImageError: damaged, or no image.
        UnsupportedImageError: of a kind that is not read rightly yet.
    """
    if channels not in MODE_BY_CHANNELS:
        raise UnsupportedImageError(
            f"image files hold 1 to 4 channels, not {channels}: give the images as an .npz"
        )
    with _open(content) as image:
        if (
            simplejpeg is not None
            and image.format in ("JPEG", "MPO")
            and image.mode in ("L", "RGB")
        ):
            pixels = _decode_jpeg(content, image, channels=channels)
            if pixels is not None:
                return pixels
        try:
            image.load()
            turned = _turn(image, _orientation(image))
        except (OSError, ValueError, SyntaxError, struct.error, IndexError) as error:
            raise UnreadableImageError(_say(error)) from None
        return to_channels(turned, channels)


def as_shown(image: Image.Image) -> Image.Image:
    """Turn an opened image as its EXIF says; palettes and CMYK become RGB, alpha stays."""
    image = _turn(image, _orientation(image))
    if image.mode in ("1", "L", "LA", "RGB", "RGBA") or image.mode.startswith(("I", "F")):
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def read_header(content: bytes) -> ImageHeader:
    """Read what a file says of itself without decoding it; raises as `decode_image` does."""
    with _open(content) as image:
        return ImageHeader(
            format="JPEG" if image.format == "MPO" else str(image.format),
            mode=image.mode,
            height=image.height,
            width=image.width,
            turned=_orientation(image) > 1,
        )


def kind_of(start: bytes) -> str | None:
    """Name the kind of image that a file's first 32 bytes announce; None: no image."""
    for magic, name in _UNSUPPORTED_MAGIC.items():
        if start.startswith(magic):
            return name
    if start[4:8] == b"ftyp":
        return _ISO_BRANDS.get(start[8:12])
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    return "BMP" if start.startswith(b"BM") else None


def _open(content: bytes) -> Image.Image:
    kind = kind_of(content[:32])
    if kind is None:
        raise UnreadableImageError("not an image" if content else "an empty file")
    if kind not in _FORMATS:
        raise UnsupportedImageError(f"{kind} is not read yet")
    if kind == "PNG" and content[24:25] == b"\x10":
        raise UnsupportedImageError("16 bits a channel are not read yet")
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError:
        raise UnreadableImageError(f"a damaged {kind} header") from None
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise UnreadableImageError(_say(error)) from None
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImageError(
            f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}"
        )
    if image.mode.startswith(("I", "F")):
        raise UnsupportedImageError(
            f"mode {image.mode} (more than 8 bits a channel) is not read yet"
        )
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise UnsupportedImageError("animations are not read yet")
    return image


def _decode_jpeg(content: bytes, image: Image.Image, *, channels: int) -> np.ndarray | None:
    """Decode by libjpeg-turbo; None where it complains and Pillow shall judge."""
    mode = "GRAY" if image.mode == "L" else "RGB"
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(content, mode)
    except ValueError:
        return None
    orientation = _orientation(image)
    same_form = (mode == "GRAY") == (channels == 1) and channels in (1, 3)
    if same_form and orientation == 1:
        return pixels
    flat = pixels[:, :, 0] if mode == "GRAY" else pixels
    return to_channels(_turn(Image.fromarray(flat), orientation), channels)


def to_channels(image: Image.Image, channels: int) -> np.ndarray:
    """Convert a decoded image of any 8-bit mode to (H, W, channels)."""
    mode = MODE_BY_CHANNELS[channels]
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") and channels in (1, 3):
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(background, image).convert("RGB")
    pixels = np.array(image if image.mode == mode else image.convert(mode))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; an EXIF block that can't be read says nothing."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, ValueError, SyntaxError, struct.error, KeyError, TypeError):
        return 1
    return orientation if orientation in range(1, 9) else 1


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _say(error: Exception) -> str:
    return str(error).strip() or type(error).__name__
