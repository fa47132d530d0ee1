from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.runs import noise, photograph

from vitral.config.preprocessing import default_preprocessing
from vitral.data.resize import crop, in_order, resize

SIDES = st.integers(1, 40)
SIZES = st.tuples(SIDES, SIDES)
WAYS = [
    {"interpolation": interpolation, "antialias": antialias, "rounding": rounding}
    for interpolation in ("bilinear", "bicubic", "area")
    for antialias in (True, False)
    for rounding in ("round", "truncate", "none")
]


def resized(pixels, size, box=None, **way):
    how = default_preprocessing((9, 9), channels=pixels.shape[2], **way)
    return resize(pixels, size, how, box=box)


def torch_resized(pixels, size, *, mode, antialias):
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    image = image.double() if antialias else image.float()
    result = F.interpolate(image, size, mode=mode, align_corners=False, antialias=antialias)
    return result[0].permute(1, 2, 0).numpy()


def test_a_crop_is_the_box():
    pixels = noise(9, 8)
    np.testing.assert_array_equal(crop(pixels, (2, 1, 3, 4)), pixels[2:5, 1:5])


# Against other code


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(224, 224), (100, 37), (400, 500), (28, 28)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_resizing_with_antialias_equals_pillow(size, interpolation, channels):
    pixels = photograph(243, 310, channels)
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    planes = [
        np.asarray(Image.fromarray(plane).resize(size[::-1], method[interpolation]), np.float64)
        for plane in pixels.transpose(2, 0, 1)
    ]
    result = resized(pixels, size, interpolation=interpolation)
    difference = np.abs(result - np.stack(planes, axis=2))
    assert result.dtype == np.uint8
    assert difference.mean() < 0.1
    assert difference.max() <= 2


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(20, 40), (31, 7)])
def test_resizing_without_antialias_is_torch_interpolate_in_floats(size, interpolation):
    pixels = noise(50, 31)
    way = {"interpolation": interpolation, "antialias": False, "rounding": "none"}
    result = resized(pixels, size, **way)
    expected = torch_resized(pixels, size, mode=interpolation, antialias=False)
    np.testing.assert_array_equal(result, expected)


# torch 2.13 repeats the first row in results that are one pixel wide.
@settings(max_examples=60, deadline=None)
@given(SIZES, st.tuples(SIDES, st.integers(2, 40)), st.sampled_from(["bilinear", "bicubic"]))
def test_resizing_with_antialias_and_no_rounding_agrees_with_torch(image_size, size, interpolation):
    pixels = noise(*image_size)
    result = resized(pixels, size, interpolation=interpolation, rounding="none")
    expected = torch_resized(pixels, size, mode=interpolation, antialias=True)
    assert result.dtype == np.float32
    assert np.abs(result - expected).max() < 0.01


def covered_shares(length, new_length):
    """(new_length, length): the share of each new pixel that lies in each old one, exactly."""
    step = Fraction(length, new_length)
    return np.array(
        [
            [float(max(0, min((i + 1) * step, j + 1) - max(i * step, j)) / step)
             for j in range(length)]
            for i in range(new_length)
        ]
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES)
def test_an_area_is_averaged_with_fractions_of_pixels(image_size, size):
    pixels = noise(*image_size)
    rows, columns = (covered_shares(*pair) for pair in zip(image_size, size, strict=True))
    expected = np.einsum("ah,bw,hwc->abc", rows, columns, pixels.astype(float))
    result = resized(pixels, size, interpolation="area", rounding="none")
    assert np.abs(result - expected).max() < 0.01


def test_an_area_by_hand():
    pixels = np.array([[[0], [90], [30]]], np.uint8)
    result = resized(pixels, (1, 2), interpolation="area", rounding="none")
    np.testing.assert_allclose(result[0, :, 0], [30, 50], rtol=1e-6)


# Rounding


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_levels_are_whole_unless_not_rounded(way):
    result = resized(photograph(30, 40), (16, 24), **way)
    assert result.shape == (16, 24, 3)
    assert result.dtype == (np.float32 if way["rounding"] == "none" else np.uint8)


@pytest.mark.parametrize("way", [way for way in WAYS if way["rounding"] == "none"], ids=str)
def test_levels_are_those_without_rounding_rounded_or_cut_off(way):
    pixels = noise(30, 40)
    exact = resized(pixels, (16, 24), **way).clip(0, 255)
    truncated = resized(pixels, (16, 24), **way | {"rounding": "truncate"})
    rounded = resized(pixels, (16, 24), **way | {"rounding": "round"})
    np.testing.assert_array_equal(truncated, np.floor(exact))
    # With antialias it is also rounded and cut off between columns and rows, as Pillow does.
    between = {"bilinear": 1, "bicubic": 4, "area": 0}[way["interpolation"]]
    assert np.abs(rounded - np.rint(exact)).max() <= (between if way["antialias"] else 0)


@pytest.mark.parametrize("antialias", [True, False])
def test_what_bicubic_overshoots_is_cut_off_before_it_is_rounded(antialias):
    pixels = np.zeros((8, 8, 1), np.uint8)
    pixels[:, 4:] = 255
    way = {"interpolation": "bicubic", "antialias": antialias}
    exact = resized(pixels, (32, 32), **way, rounding="none")
    assert exact.min() < -5
    assert exact.max() > 260
    for rounding in ("round", "truncate"):
        levels = resized(pixels, (32, 32), **way, rounding=rounding)
        assert (levels[exact < 0] == 0).all()
        assert (levels[exact > 255] == 255).all()


# What is left alone


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_part_of_the_result_is_that_of_the_whole(way):
    pixels = noise(30, 40)
    whole = resized(pixels, (23, 57), **way)
    part = resized(pixels, (23, 57), box=(5, 11, 9, 20), **way)
    np.testing.assert_array_equal(part, whole[5:14, 11:31])


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_pixels_of_the_right_size_stay_as_they_are(way):
    result = resized(noise(12, 9), (12, 9), **way)
    assert result.dtype == (np.float32 if way["rounding"] == "none" else np.uint8)
    np.testing.assert_array_equal(result, noise(12, 9))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_any_number_of_channels_is_resized_channel_by_channel(channels, way):
    pixels = noise(40, 30, channels)
    together = resized(pixels, (16, 24), **way)
    planes = [resized(pixels[:, :, [c]], (16, 24), **way) for c in range(channels)]
    difference = np.abs(together.astype(float) - np.concatenate(planes, axis=2))
    assert together.shape == (16, 24, channels)
    assert difference.max() <= 1


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_pixels_that_can_not_be_written_are_resized_too(way, recwarn):
    pixels = noise(12, 9)
    pixels.flags.writeable = False
    assert resized(pixels, (5, 5), **way).shape == (5, 5, 3)
    np.testing.assert_array_equal(pixels, noise(12, 9))
    assert not recwarn.list


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(
    "view",
    [
        lambda pixels: pixels,
        lambda pixels: pixels[2:7, 1:],
        lambda pixels: pixels[:, ::-1],
        np.rot90,
        lambda pixels: pixels[:, :, ::-1],
    ],
)
def test_pixels_in_order_are_the_same_row_by_row(view, channels, dtype):
    pixels = view(noise(9, 12, channels=channels).astype(dtype))
    ordered = in_order(pixels)
    np.testing.assert_array_equal(ordered, pixels)
    assert ordered.dtype == dtype
    assert ordered.flags.c_contiguous
    assert ordered.flags.writeable
