"""From a file's bytes to pixels: the one decoder that training, evaluation and prediction share.

EXIF orientation is applied, palettes and CMYK become RGB, transparency is composited on white, the
first of several frames is taken. Images of more than eight bits keep their values. Files that can't
be read correctly are refused.
"""

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from vitral.data.file_types import START_BYTES, is_read, kind_of
from vitral.data.jpeg import ORIENTATIONS, Reduce, Scratch, decode_stored, plain_size
from vitral.data.levels import check_deep
from vitral.errors import DataError

MAX_PIXELS = 178_956_970  # where Pillow takes an image for a decompression bomb
BACKGROUND = (255, 255, 255)
MODE_BY_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF")
_DAMAGE = (OSError, ValueError, SyntaxError, struct.error, IndexError, TypeError, KeyError)
"""What Pillow raises for damaged files."""
# Reading a colour of 16 bits as one of the other byte order gives its low byte.
_OTHER_ORDER = {"16B": "16L", "16L": "16B", "16N": "16B" if struct.pack("=h", 1)[0] else "16L"}


class UnreadableImageError(Exception):
    """The bytes are damaged or no image; the message says how."""


class UnsupportedImageError(Exception):
    """A kind of image that is not supported yet; the message names it."""


@dataclass(frozen=True)
class ImageHeader:
    """What an image's header says, before orientation."""

    format: str
    mode: str
    """Pillow's mode, with `;16` appended for colour of 16 bits a channel; or an array's type."""
    height: int
    width: int
    turned: bool
    """Whether EXIF says that the picture must be rotated or mirrored."""
    num_frames: int = 1


def decode_image(
    content: bytes,
    *,
    channels: int = 3,
    reduce: Reduce | None = None,
    scratch: Scratch | None = None,
) -> np.ndarray:
    """Decode an image as a viewer shows it.

    Args:
        content: the bytes of a file.
        channels: 1: grey, 2: grey and alpha, 3: RGB, 4: RGBA; any number for a NumPy array.
        reduce: returns the factor by which a JPEG may be decoded smaller; None: full size.
        scratch: memory that may hold the pixels until its next use; None: new memory.

    Returns:
        Pixels (H, W, channels): uint8; of images of more than eight bits the values as they are,
        uint16, int32 or float32.

    Raises:
        UnreadableImageError: damaged, or no image.
        UnsupportedImageError: of a kind that is not supported yet.
    """
    size = plain_size(content, channels=channels)
    if size is not None and size[0] * size[1] <= MAX_PIXELS:
        reduction = reduce(size) if reduce else 1
        pixels = decode_stored(
            content, size, channels=channels, reduction=reduction, scratch=scratch
        )
        if pixels is not None:
            return pixels
    if kind_of(content[:START_BYTES]) == "NumPy":
        return _match_channels(_read_array(content), channels)
    if channels not in MODE_BY_CHANNELS:
        raise UnsupportedImageError(
            f"pictures hold 1 to 4 channels, not {channels}: give the images as .npy or .npz"
        )
    with _open(content) as image:
        if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
            pixels = _decode_jpeg(content, image, channels=channels, reduce=reduce, scratch=scratch)
            if pixels is not None:
                return pixels
        try:
            if _is_deep(image):
                return _match_channels(_decode_deep(content, image), channels)
            image.load()
            return to_channels(_orient(image, _orientation(image)), channels)
        except _DAMAGE as error:
            raise UnreadableImageError(_message(error)) from None


def as_shown(image: Image.Image) -> Image.Image:
    """Orient an opened image as its EXIF says; palettes and CMYK become RGB, alpha stays."""
    image = _orient(image, _orientation(image))
    if image.mode in ("1", "L", "LA", "RGB", "RGBA") or image.mode.startswith(("I", "F")):
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def channels_of_array(content: bytes) -> int | None:
    """Return the channels of a file that is a NumPy array; None of pictures and damaged arrays."""
    if kind_of(content[:START_BYTES]) != "NumPy":
        return None
    try:
        return int(_read_array(content).shape[2])
    except (UnreadableImageError, UnsupportedImageError):
        return None


def read_header(content: bytes) -> ImageHeader:
    """Read a file's header without decoding the image; raises as `decode_image` does."""
    if kind_of(content[:START_BYTES]) == "NumPy":
        array = _read_array(content)
        height, width = array.shape[:2]
        return ImageHeader("NumPy", str(array.dtype), height, width, turned=False)
    with _open(content) as image:
        try:
            num_frames = getattr(image, "n_frames", 1)
        except _DAMAGE:
            num_frames = 1  # decoding the first frame reports the damage
        is_colour = not image.mode.startswith(("I", "F"))
        return ImageHeader(
            format="JPEG" if image.format == "MPO" else str(image.format),
            mode=f"{image.mode};16" if is_colour and _is_deep(image) else image.mode,
            height=image.height,
            width=image.width,
            turned=_orientation(image) > 1,
            num_frames=1 if image.format == "MPO" else num_frames,
        )


def _is_deep(image: Image.Image) -> bool:
    """Return whether an opened, not yet decoded image has more than eight bits a channel."""
    return image.mode.startswith(("I", "F")) or _sixteen_bit_order(image) is not None


def _open(content: bytes) -> Image.Image:
    kind = kind_of(content[:START_BYTES])
    if kind is None:
        raise UnreadableImageError("not an image" if content else "an empty file")
    if not is_read(kind):
        raise UnsupportedImageError(f"{kind} is not read yet")
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError:
        raise UnreadableImageError(f"a damaged {kind} header") from None
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise UnreadableImageError(_message(error)) from None
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImageError(
            f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}"
        )
    if image.mode == "LAB":
        raise UnsupportedImageError("colours in CIELAB are not read yet")
    return image


def _decode_jpeg(
    content: bytes,
    image: Image.Image,
    *,
    channels: int,
    reduce: Reduce | None,
    scratch: Scratch | None,
) -> np.ndarray | None:
    """Decode a JPEG that Pillow has opened; None where Pillow must decode it."""
    orientation, stored_channels = _orientation(image), len(image.mode)
    size = (image.height, image.width)
    reduction = reduce(size if orientation < 5 else size[::-1]) if reduce else 1
    pixels = decode_stored(
        content, size, channels=stored_channels, reduction=reduction, scratch=scratch
    )
    if pixels is None:
        return None
    if stored_channels == channels:
        return ORIENTATIONS[orientation](pixels)
    flat = pixels[:, :, 0] if stored_channels == 1 else pixels
    return to_channels(_orient(Image.fromarray(flat), orientation), channels)


def _decode_deep(content: bytes, image: Image.Image) -> np.ndarray:
    """Decode more than eight bits: grey (H, W, 1) of any type, colour (H, W, C) of 16 bits."""
    order = _sixteen_bit_order(image)
    if order is None:
        image.load()
        return _decode_deep_grey(image)
    if image.mode not in ("RGB", "RGBA") or order == "LA":
        kind = order if order == "LA" else image.mode
        raise UnsupportedImageError(f"{kind} of 16 bits a channel is not read yet")
    with _open(content) as other:
        other.tile = [_swap_byte_order(tile) for tile in other.tile]  # type: ignore[attr-defined]
        high, low = (np.asarray(_load_oriented(source), np.uint16) for source in (image, other))
    return high * np.uint16(256) + low


def _decode_deep_grey(image: Image.Image) -> np.ndarray:
    values = np.asarray(_orient(image, _orientation(image)))
    if values.dtype == np.int32 and image.format == "PNG":
        values = values.astype(np.uint16)
    pixels = check_deep(values.astype(values.dtype.newbyteorder("=")))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and pixels.dtype == np.uint16:
        pixels = np.where(pixels == transparent, np.uint16(65535), pixels)
    return pixels[:, :, None]


def _load_oriented(image: Image.Image) -> Image.Image:
    image.load()
    return _orient(image, _orientation(image))


def _sixteen_bit_order(image: Image.Image) -> str | None:
    """Return the byte order of colour channels of 16 bits, such as "16B"; None: 8 bits."""
    modes = {_raw_mode(tile) for tile in getattr(image, "tile", [])}
    orders = {mode.partition(";")[2] for mode in modes}
    if image.mode in ("RGB", "RGBA", "CMYK") and orders & _OTHER_ORDER.keys():
        return "LA" if "LA;16B" in modes else orders.pop()
    return None


def _raw_mode(tile: ImageFile._Tile) -> str:
    arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    return str(arguments[0]) if arguments else ""


def _swap_byte_order(tile: ImageFile._Tile) -> ImageFile._Tile:
    mode, _, order = _raw_mode(tile).partition(";")
    swapped = f"{mode};{_OTHER_ORDER[order]}"
    rest = tile.args[1:] if isinstance(tile.args, tuple) else None
    return tile._replace(args=swapped if rest is None else (swapped, *rest))


def _read_array(content: bytes) -> np.ndarray:
    """Read a .npy of one image as (H, W, C)."""
    try:
        array = check_deep(np.load(io.BytesIO(content), allow_pickle=False))
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise UnreadableImageError(f"a damaged array: {error}") from None
    except DataError as error:
        raise UnsupportedImageError(str(error)) from None
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] > 4:
        raise UnsupportedImageError(
            f"an array of shape {array.shape} looks like (C, H, W), wanted (H, W, C)"
        )
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise UnsupportedImageError(f"an array of shape {array.shape}, wanted (H, W) or (H, W, C)")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise UnreadableImageError(
            f"{array.shape[1]} x {array.shape[0]} pixels are more than {MAX_PIXELS:,}"
        )
    return array[:, :, None] if array.ndim == 2 else array


def _match_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Return deep or array pixels in the wanted channels, where that has one meaning."""
    found = pixels.shape[2]
    if found == channels:
        return pixels
    if found == 1 and channels == 3:
        return pixels.repeat(3, axis=2)
    if found == 4 and channels in (1, 3) and pixels.dtype == np.uint16:
        return _match_channels(_on_white(pixels), channels)
    if found == 3 and channels == 1:
        return luma(pixels)
    raise UnsupportedImageError(f"{found} channels for a model of {channels}")


def luma(pixels: np.ndarray) -> np.ndarray:
    """Return the grey of RGB (H, W, 3) as (H, W, 1): Rec. 601, whole numbers as Pillow rounds."""
    if pixels.dtype.kind == "f":
        return (pixels @ np.array([0.299, 0.587, 0.114], pixels.dtype))[:, :, None]
    weighted = pixels.astype(np.int64) @ np.array([19595, 38470, 7471])
    return ((weighted + 0x8000) >> 16).astype(pixels.dtype)[:, :, None]


def _on_white(pixels: np.ndarray) -> np.ndarray:
    alpha = pixels[:, :, 3:] / np.float32(65535)
    return np.rint(alpha * pixels[:, :, :3] + (1 - alpha) * 65535).astype(np.uint16)


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
    """Return EXIF's orientation, 1 to 8; 1 where EXIF can't be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DAMAGE:
        return 1
    return orientation if orientation in range(1, 9) else 1


def _orient(image: Image.Image, orientation: int) -> Image.Image:
    transposes = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return image.transpose(transposes[orientation]) if orientation in transposes else image


def _message(error: Exception) -> str:
    return str(error).strip() or type(error).__name__
