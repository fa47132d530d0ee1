import threading

import numpy as np
import pytest
from PIL import Image

from vitral.data.decode import decode_image
from vitral.data.jpeg import REDUCTIONS, Scratch, plain_size

pytest.importorskip("simplejpeg", reason="has no wheel for this platform: Pillow decodes")


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_a_jpeg_that_needs_no_turning_tells_its_size(picture, encode):
    assert plain_size(encode(picture(size=(10, 13)), "JPEG"), channels=3) == (10, 13)
    assert plain_size(encode(picture(size=(9, 4), mode="L"), "JPEG"), channels=1) == (9, 4)
    progressive = encode(picture(), "JPEG", progressive=True, comment=b"\xff\xe1 no segment")
    assert plain_size(progressive, channels=3) == (10, 12)


@pytest.mark.parametrize(
    ("mode", "kind", "channels", "options"),
    [
        ("RGB", "JPEG", 3, {"exif": exif(1)}),
        ("RGB", "JPEG", 3, {"icc_profile": b"\xff\xda" * 40, "exif": exif(6)}),
        ("RGB", "JPEG", 3, {"xmp": b"<x:xmpmeta/>"}),
        ("RGB", "JPEG", 1, {}),
        ("L", "JPEG", 3, {}),
        ("CMYK", "JPEG", 3, {}),
        ("RGB", "PNG", 3, {}),
    ],
)
def test_all_else_is_left_to_pillow(picture, encode, mode, kind, channels, options):
    assert plain_size(encode(picture(mode=mode), kind, **options), channels=channels) is None


@pytest.mark.parametrize("length", range(2, 200, 7))
def test_of_a_cut_off_jpeg_no_size_is_told_before_all_segments_are_there(picture, encode, length):
    assert plain_size(encode(picture(), "JPEG")[:length], channels=3) is None


def test_images_of_any_order_of_size_are_decoded_into_the_same_memory(picture, encode):
    scratch = Scratch()
    for number, size in enumerate([(10, 12), (40, 30), (5, 6), (40, 31)]):
        content = encode(picture(number, size=size), "JPEG")
        pixels = decode_image(content, scratch=scratch)
        assert np.shares_memory(pixels, scratch.reserve(1))
        np.testing.assert_array_equal(pixels, decode_image(content))


def test_every_thread_has_memory_of_its_own():
    scratch, others = Scratch(), []
    thread = threading.Thread(target=lambda: others.append(scratch.reserve(100)))
    thread.start()
    thread.join()
    assert not np.shares_memory(scratch.reserve(100), others[0])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_smaller_image_shows_the_same(encode, reduction, orientation):
    down, right = np.mgrid[:136, :88]
    stored = np.stack([down, 2 * right, 255 - down], axis=2).astype(np.uint8)
    tags = exif(orientation)
    content = encode(Image.fromarray(stored), "JPEG", quality=95, exif=tags)
    asked = []

    def reduce(size):
        asked.append(size)
        return reduction

    whole = decode_image(content).astype(int)
    smaller = decode_image(content, reduce=reduce, scratch=Scratch())
    assert asked == [whole.shape[:2]]
    area = np.asarray(Image.fromarray(whole.astype(np.uint8)).reduce(reduction), int)
    assert np.abs(smaller[1:-1, 1:-1] - area[1:-1, 1:-1]).max() <= 8


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_sides_of_a_smaller_image_are_rounded_up(picture, encode, reduction):
    content = encode(picture(size=(131, 90)), "JPEG", exif=exif(6))
    height, width, _ = decode_image(content, reduce=lambda _: reduction).shape
    assert (height, width) == (-(-90 // reduction), -(-131 // reduction))
