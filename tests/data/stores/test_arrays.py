import io

import numpy as np
import pytest
import torch
from PIL import Image

from vitral.data.stores.arrays import ArrayStore, ObjectStore, TiledStore, as_pixels
from vitral.errors import DataError


def test_arrays_without_channels_get_one():
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    store = ArrayStore(images, path="a.npz")
    assert list(store.names) == store.names[0:2] == ["0", "1"]
    assert store.stamp(0) is None
    np.testing.assert_array_equal(store.read(1), images[1, :, :, None])


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 3), np.uint8),
        np.zeros((2, 3, 4, 3, 1), np.uint8),
        np.array(3, np.uint8),
    ],
)
def test_arrays_of_another_form_are_refused(images):
    with pytest.raises(DataError, match=r"wanted \(N, H, W\) or \(N, H, W, C\)"):
        ArrayStore(images, path="a.npz")


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float64])
def test_arrays_of_more_than_eight_bits_keep_their_values(dtype):
    images = (np.arange(24).reshape(2, 3, 4) * 100).astype(dtype)
    pixels = ArrayStore(images, path="a.npz").read(1)
    np.testing.assert_array_equal(pixels[:, :, 0], images[1])


def test_arrays_of_no_numbers_are_refused():
    with pytest.raises(DataError, match=r"a\.npz: images of values of type <U1"):
        ArrayStore(np.full((2, 3, 4), "a"), path="a.npz")


PIXELS = np.linspace(0, 255, 60).astype(np.uint8).reshape(4, 5, 3)


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        PIXELS / 255,
        (PIXELS / 255).astype(np.float32),
        Image.fromarray(PIXELS),
        torch.tensor(PIXELS).permute(2, 0, 1),
        torch.tensor(PIXELS).permute(2, 0, 1) / 255,
        (torch.tensor(PIXELS).permute(2, 0, 1) / 255).requires_grad_(),
    ],
)
def test_every_usual_form_of_an_image_becomes_the_same_pixels(image):
    np.testing.assert_array_equal(as_pixels(image), PIXELS)


@pytest.mark.parametrize(
    "image",
    [
        PIXELS[:, :, 0],
        Image.fromarray(PIXELS[:, :, 0]),
        torch.tensor(PIXELS[:, :, 0]),
        torch.tensor(PIXELS[None, :, :, 0]),
        (torch.tensor(PIXELS[:, :, 0]) / 255).requires_grad_(),
    ],
)
def test_grey_images_get_one_channel(image):
    np.testing.assert_array_equal(as_pixels(image), PIXELS[:, :, :1])


def test_floats_are_rounded():
    image = np.array([[0.0, 0.298, 0.302, 0.999, 1.0]])  # 75.99, 77.01 and 254.7
    assert as_pixels(image).ravel().tolist() == [0, 76, 77, 255, 255]


@pytest.mark.parametrize("image", [PIXELS > 20, Image.fromarray(PIXELS[:, :, 0] > 20)])
def test_truth_values_are_black_and_white(image):
    np.testing.assert_array_equal(as_pixels(image)[:, :, 0], (PIXELS[:, :, 0] > 20) * 255)


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr", "HSV"])
def test_pil_images_in_other_colours_become_rgb(picture, mode):
    image = picture(mode=mode)
    np.testing.assert_array_equal(as_pixels(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_pil_images_keep_their_alpha(picture, mode):
    image = picture(mode=mode)
    np.testing.assert_array_equal(as_pixels(image), np.asarray(image))


def test_a_pil_image_is_turned_as_its_file_is(picture, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(encode(picture(), "PNG", exif=exif)))
    np.testing.assert_array_equal(as_pixels(image), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PIXELS * 1.0, "floats from 0 to 255: give uint8, or floats in 0..1"),
        (PIXELS / 255 - 0.5, "floats from -0.5 to"),
        (np.full((2, 2), np.nan), "floats from nan to nan"),
        (PIXELS[None], r"shape \(1, 4, 5, 3\): give \(H, W\) or"),
        (np.full((2, 2), 1j), "type complex128"),
        ("a path", r"shape \(\): give"),
        (None, r"shape \(\): give"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(DataError, match=message):
        as_pixels(image)


def test_whole_numbers_of_more_than_eight_bits_keep_their_values():
    deep = as_pixels(Image.fromarray(np.full((2, 3), 40_000, np.uint16)))
    assert (deep.dtype, deep.shape, int(deep[0, 0, 0])) == (np.uint16, (2, 3, 1), 40_000)
    assert as_pixels(PIXELS.astype(np.int64)).dtype == np.int32


def test_an_object_gives_the_image_of_an_example():
    store = ObjectStore([(PIXELS, 3), (PIXELS[::-1], 1)])
    assert list(store.names) == ["0", "1"]
    assert store.stamp(0) is None
    np.testing.assert_array_equal(store.read(1), PIXELS[::-1])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_pil_image_with_transparency_is_put_on_white_for_a_model_without(channels):
    image = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert as_pixels(image, channels=channels).shape == (2, 2, channels)
    assert (as_pixels(image, channels=channels) == 255).all()
    assert as_pixels(image, channels=4).shape == (2, 2, 4)


def test_grey_images_are_tiled_when_read():
    grey = np.array([[[0, 1]], [[2, 255]]], np.uint8)
    store = TiledStore(ArrayStore(grey, path="a.npz"))
    assert list(store.names) == ["0", "1"]
    np.testing.assert_array_equal(store.read(1), [[[2, 2, 2], [255, 255, 255]]])
    assert store.read(1).flags.writeable
    assert store.stamp(0) is None
    assert store.blocks() is None
