"""What kind of file the first bytes announce, whatever its name says."""

from PIL import features

READ_KINDS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "NumPy")
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "NumPy": (".npy",),
}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
START_BYTES = 32
"""Bytes from the start of a file that are enough to tell its kind."""
_MAGIC = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP", b"GIF8": "GIF",
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
    b"\x93NUMPY": "NumPy",
    b"\0\0\0\x0cjP  ": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000", b"8BPS": "Photoshop",
    b"qoif": "QOI", b"v/1\x01": "OpenEXR",
}  # fmt: skip
_ISO_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF", b"avis": "AVIF"}


def kind_of(start: bytes) -> str | None:
    """Return the kind of image that a file's first 32 bytes announce; None: no image."""
    for magic, name in _MAGIC.items():
        if start.startswith(magic):
            return name
    if start[4:8] == b"ftyp":
        return _ISO_BRANDS.get(start[8:12])
    return "WEBP" if start[:4] == b"RIFF" and start[8:12] == b"WEBP" else None


def is_read(kind: str) -> bool:
    """Return whether a kind of image is supported; AVIF needs a Pillow that was built with it."""
    return kind in READ_KINDS and (kind != "AVIF" or bool(features.check("avif")))
