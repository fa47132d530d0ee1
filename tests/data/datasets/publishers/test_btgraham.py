import numpy as np
import pytest

from vitral.data.datasets.publishers.btgraham import (
    blur,
    circle_half_widths,
    crop_to_circle,
    eye_radius,
    gaussian_kernel,
    prepare_retina,
    scale_bilinear,
    subtract_local_average,
)


def eye(height=120, width=160, *, radius=50):
    """A lit disc on black."""
    y, x = np.mgrid[:height, :width]
    lit = (y - height / 2 + 0.5) ** 2 + (x - width / 2 + 0.5) ** 2 < radius**2
    return (lit[..., None] * np.array([200, 90, 40])).astype(np.uint8)


def test_the_radius_is_half_of_what_is_bright_in_the_middle_row():
    assert eye_radius(eye(radius=50)) == 50
    assert eye_radius(np.zeros((30, 50, 3), np.uint8)) == 15


def test_scaling_by_one_changes_nothing(random):
    image = random.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(scale_bilinear(image, 1.0), image)


@pytest.mark.parametrize("factor", [0.1, 0.37, 0.5, 1.3, 2.0, 6.5])
def test_scaling_weighs_the_two_nearest_pixels(random, factor):
    image = random.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    scaled = scale_bilinear(image, factor)
    assert scaled.shape == (round(40 * factor), round(30 * factor), 3)
    exact = image.astype(float)
    for axis, size in ((0, 40), (1, 30)):
        places = ((np.arange(scaled.shape[axis]) + 0.5) / factor - 0.5).clip(0, size - 1)
        before = np.floor(places).astype(int)
        share = np.expand_dims(places - before, 1 - axis)[..., None]
        after = np.minimum(before + 1, size - 1)
        exact = exact.take(before, axis) * (1 - share) + exact.take(after, axis) * share
    assert np.abs(scaled - exact).max() < 1.2


def test_a_scaled_image_has_a_pixel_at_least():
    assert scale_bilinear(np.full((2, 9, 3), 7, np.uint8), 0.1).tolist() == [[[7, 7, 7]]]


def test_the_kernel_is_opencvs():
    # cv2.GaussianBlur of a column of 255 amid zeros gives them.
    kernel = gaussian_kernel(10.0)
    assert len(kernel) == 61
    assert kernel.sum() == 256
    assert kernel.tolist() == kernel[::-1].tolist()
    assert kernel[:31].tolist() == [
        0, 0, 0, 1, 0, 1, 0, 1, 1, 1, 1, 2, 2, 2, 3,
        4, 3, 5, 5, 5, 7, 6, 8, 8, 8, 9, 10, 10, 10, 10, 10,
    ]  # fmt: skip


def test_blurring_is_the_rounded_sum_of_the_kernel(random):
    image = random.integers(0, 256, (70, 65, 3), dtype=np.uint8)
    kernel = gaussian_kernel(3.0)
    reach = len(kernel) // 2
    padded = np.pad(image.astype(np.int64), ((reach, reach), (reach, reach), (0, 0)), "reflect")
    weights = kernel[:, None] * kernel
    windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape, axis=(0, 1))
    wanted = (np.einsum("hwcij,ij->hwc", windows, weights) + 2**15) >> 16
    np.testing.assert_array_equal(blur(image, sigma=3.0), wanted)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 200), (500, 3)])
def test_an_even_image_stays_even(size):
    image = np.full((*size, 3), 255, np.uint8)
    assert (blur(image, sigma=10.0) == 255).all()
    assert (subtract_local_average(image, sigma=10.0) == 128).all()


def test_differences_are_cut_off():
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    result = subtract_local_average(image, sigma=2.0)
    assert result[20, 20].tolist() == [255] * 3
    assert result[20, 21].tolist() < [128] * 3
    assert result[0, 0].tolist() == [128] * 3


def test_the_circle_is_opencvs():
    # As cv2.circle fills one of radius 6.
    assert circle_half_widths(6).tolist() == [6, 5, 5, 5, 4, 3, 0]
    assert circle_half_widths(0).tolist() == [0]


@pytest.mark.parametrize("radius", [1, 2, 3, 10, 57, 270])
def test_the_circle_is_one(radius):
    exact = np.sqrt(radius**2 - np.arange(radius + 1) ** 2)
    assert np.abs(circle_half_widths(radius) - exact).max() <= max(2, radius**0.5)
    assert np.abs(circle_half_widths(radius) - exact)[: radius // 2].max(initial=0) <= 1


def test_what_is_outside_the_circle_is_grey_and_the_box_is_cut():
    image = np.zeros((30, 41, 3), np.uint8)
    cropped = crop_to_circle(image, 10)
    assert cropped.shape == (20, 20, 3)
    assert (cropped[0, 0] == 128).all()
    assert (cropped[10] == 0).all()
    assert crop_to_circle(image, 18).shape == (30, 36, 3)
    assert (crop_to_circle(image, 18)[:, 18] == 0).all()


def test_an_eye_is_prepared():
    prepared = prepare_retina(eye())
    assert prepared.shape == (540, 540, 3)
    assert prepared.dtype == np.uint8
    assert (prepared[0, 0] == 128).all()
    assert (prepared[270, 270] == 128).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (6, 300)])
def test_odd_images_are_prepared(random, size):
    image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    prepared = prepare_retina(image)
    assert max(prepared.shape[:2]) <= 540
    assert min(prepared.shape[:2]) >= 1


def test_an_image_that_shows_next_to_nothing_is_refused():
    image = np.zeros((600, 800, 3), np.uint8)
    image[300, 400:402] = 255
    with pytest.raises(ValueError, match="600x800 pixels with an eye of only 2"):
        prepare_retina(image)


def test_preparation_gives_opencvs_values():
    # cv2 4.10 and 5.0 by the steps of TensorFlow Datasets, of the same image.
    y, x = np.mgrid[:90, :120]
    image = np.stack([(x * 7 + y * 3) % 251, (x * y) % 241, (x + 5 * y) % 239], 2).astype(np.uint8)
    prepared = prepare_retina(image).astype(np.int64)
    assert prepared.shape == (450, 540, 3)
    wanted = [0, 104, 255, 8, 255, 80, 80, 240, 255, 108, 8, 72, 120, 112, 88, 96]
    assert np.abs(prepared[100:440:85, 100:440:85, 1].ravel() - wanted).max() <= 4
    assert abs(prepared.sum() - 93_148_272) <= 4000
