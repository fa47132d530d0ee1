import io

import numpy as np
import pytest
from PIL import Image

from vitral.data.decode import decode_image
from vitral.data.pack_shard import as_file, encode_jpeg, is_shrunk, shrink
from vitral.data.sources.listing import FileInfo


def test_pixels_become_an_array_file(picture):
    pixels = np.asarray(picture())
    np.testing.assert_array_equal(decode_image(as_file(pixels)), pixels)
    assert as_file(b"bytes") == b"bytes"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"mode": "RGB"}, True),
        ({"mode": "L"}, True),
        ({"mode": "RGB", "height": 50}, False),
        ({"mode": "RGB", "width": 51}, True),
        ({"mode": "RGBA"}, False),
        ({"mode": "P"}, False),
        ({"mode": "L", "depth": "uint16"}, False),
    ],
)
def test_what_can_lose_pixels_without_losing_its_kind_is_shrunk(fields, expected):
    file_info = FileInfo(**{"height": 100, "width": 100} | fields)
    assert is_shrunk(file_info, shorter=50) is expected


def test_shrinking_is_pillows(encode, photo):
    content = encode_png(photo)
    file_info = FileInfo(mode="RGB", height=photo.height, width=photo.width)
    shrunk = shrink(content, file_info, shorter=40, quality=95)
    size = (
        (40, round(photo.height * 40 / photo.width))
        if photo.width < photo.height
        else (round(photo.width * 40 / photo.height), 40)
    )
    file = io.BytesIO()
    photo.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=95, subsampling=2)
    ours, theirs = (decode_image(content).astype(np.int64) for content in (shrunk, file.getvalue()))
    assert np.abs(ours - theirs).mean() < 0.5


def encode_png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def photo(stress):
    """A real photograph."""
    return Image.open(io.BytesIO(stress["pillow/hopper.jpg"])).convert("RGB")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_higher_quality_is_nearer_and_larger(photo, mode):
    pixels = np.asarray(photo.convert(mode)).reshape(photo.height, photo.width, -1)
    sizes, errors = [], []
    for quality in (30, 60, 90):
        content = encode_jpeg(pixels, quality=quality)
        image = Image.open(io.BytesIO(content))
        assert image.mode == mode
        shown = decode_image(content, channels=pixels.shape[2]).astype(np.int64)
        sizes.append(len(content))
        errors.append(np.abs(shown - pixels).mean())
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
