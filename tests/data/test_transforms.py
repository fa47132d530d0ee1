import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from vitral.data.decode import decode_image
from vitral.data.order import uniforms
from vitral.data.transforms import (
    CROP_TRIES,
    NUM_UNIFORMS,
    augment,
    central_box,
    crop,
    inception_box,
    match_channels,
    normalise,
    preprocess,
    resize,
    shift,
)
from vitral.errors import DataError
from vitral.spec.preprocessing import Preprocessing, default_preprocessing
from vitral.spec.run import AugmentSettings

SIDES = st.integers(1, 300)
SIZES = st.tuples(SIDES, SIDES)
NUMBERS = hnp.arrays(np.float64, NUM_UNIFORMS, elements=st.floats(0, 1, exclude_max=True))
REFERENCES = ["n01644373_tree_frog", "n01756291_sidewinder", "n02085936_Maltese_dog",
              "n02692877_airship"]  # fmt: skip
GREY_LEVEL = 1 / 127.5


def noise(height, width, channels=3, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width, channels), dtype=np.uint8)


def photograph(height, width, channels=3):
    """Something smooth with an edge, which resizing treats as it treats photographs."""
    y, x, c = np.mgrid[0:height, 0:width, 0:channels]
    waves = np.sin(x / 9 + c) * np.cos(y / 7 - c) * 100 + 128
    return np.where(x > y, waves, 255 - waves).astype(np.uint8)


# Boxes


@given(SIZES, SIZES, st.floats(0.05, 1))
def test_the_central_box_lies_in_the_middle_of_the_image(image_size, size, crop_share):
    box = central_box(image_size, default_preprocessing(size, channels=3, crop_share=crop_share))
    top, left, height, width = box
    below, right = image_size[0] - top - height, image_size[1] - left - width
    assert min(top, left, below, right) >= 0
    assert height >= 1
    assert width >= 1
    assert abs(top - below) <= 1
    assert abs(left - right) <= 1


@given(SIZES, SIZES)
def test_the_central_box_is_the_largest_of_its_shape(image_size, size):
    _, _, height, width = central_box(image_size, default_preprocessing(size, channels=3))
    scale = min(image_size[0] / size[0], image_size[1] / size[1])
    assert abs(height - size[0] * scale) <= max(0.5, 1 - size[0] * scale) + 1e-9
    assert abs(width - size[1] * scale) <= max(0.5, 1 - size[1] * scale) + 1e-9


@pytest.mark.parametrize(
    ("image_size", "size", "share", "box"),
    [
        ((480, 640), (224, 224), 1.0, (0, 80, 480, 480)),
        ((480, 640), (224, 224), 0.875, (30, 110, 420, 420)),
        ((640, 480), (224, 224), 1.0, (80, 0, 480, 480)),
        ((480, 640), (224, 448), 1.0, (80, 0, 320, 640)),
        ((28, 28), (28, 28), 1.0, (0, 0, 28, 28)),
        ((1, 300), (32, 32), 1.0, (0, 149, 1, 1)),
    ],
)
def test_the_central_box_of_usual_images(image_size, size, share, box):
    assert central_box(image_size, default_preprocessing(size, channels=3, crop_share=share)) == box


@given(SIZES, NUMBERS, st.floats(0.01, 1), st.floats(1, 4), st.floats(0.2, 5))
def test_a_random_box_lies_in_the_image(image_size, numbers, min_area, max_aspect, aspect):
    settings_ = AugmentSettings(min_area=min_area, max_aspect=max_aspect)
    top, left, height, width = inception_box(image_size, numbers, settings=settings_, aspect=aspect)
    assert 0 <= top <= top + height <= image_size[0]
    assert 0 <= left <= left + width <= image_size[1]
    assert height >= 1
    assert width >= 1


@given(st.tuples(st.integers(60, 600), st.integers(60, 600)), NUMBERS, st.floats(0.05, 1),
       st.floats(1, 2), st.floats(0.5, 2))  # fmt: skip
def test_a_random_box_keeps_to_the_limits_of_area_and_shape(
    image_size, numbers, min_area, max_aspect, aspect
):
    settings_ = AugmentSettings(min_area=min_area, max_aspect=max_aspect)
    _, _, height, width = inception_box(image_size, numbers, settings=settings_, aspect=aspect)
    # Sides are rounded to whole pixels: half of one either way.
    assert (width - 0.5) / (height + 0.5) <= aspect * max_aspect + 1e-9
    assert (width + 0.5) / (height - 0.5) >= aspect / max_aspect - 1e-9
    fits = min(image_size[1] / image_size[0] / aspect, aspect * image_size[0] / image_size[1], 1)
    least = min(min_area, fits / max_aspect)  # the largest box of an allowed shape may be smaller
    assert (height + 0.5) * (width + 0.5) >= least * image_size[0] * image_size[1] - 1e-6


def test_random_boxes_are_even_in_area_place_and_logarithm_of_shape():
    numbers = uniforms(0, 0, np.arange(4000), count=NUM_UNIFORMS)
    settings_ = AugmentSettings(min_area=0.2, max_aspect=4 / 3)
    boxes = np.array([inception_box((4000, 4000), n, settings=settings_) for n in numbers])
    top, left, height, width = boxes.T
    shapes = np.log(width / height) / math.log(4 / 3)
    assert abs(shapes.mean()) < 0.05
    assert shapes.std() == pytest.approx(1 / math.sqrt(3), abs=0.03)
    assert (height * width / 4000**2).min() == pytest.approx(0.2, abs=0.01)
    for start, side in ((top, height), (left, width)):
        assert (start / (4000 - side + 1)).mean() == pytest.approx(0.5, abs=0.02)


def test_a_box_that_never_fits_is_the_largest_central_one_of_an_allowed_shape():
    numbers = np.full(NUM_UNIFORMS, 0.999)
    settings_ = AugmentSettings(min_area=0.9, max_aspect=2)
    assert inception_box((100, 1000), numbers, settings=settings_) == (0, 400, 100, 200)
    assert inception_box((1000, 100), numbers, settings=settings_) == (400, 0, 200, 100)
    assert inception_box((100, 100), numbers, settings=AugmentSettings(min_area=1)) == (
        0, 0, 100, 100,
    )  # fmt: skip


@pytest.mark.parametrize(("number", "start"), [(0.0, 0), (0.9999, 40)])
def test_a_random_box_reaches_every_edge(number, start):
    numbers = np.array([*[0.0, 0.5] * CROP_TRIES, number, number, 0.5])
    settings_ = AugmentSettings(min_area=0.36)
    assert inception_box((100, 100), numbers, settings=settings_) == (start, start, 60, 60)


def test_the_later_tries_have_numbers_of_their_own():
    numbers = np.full(NUM_UNIFORMS, 0.999)
    numbers[2 * CROP_TRIES - 2 : 2 * CROP_TRIES] = [0.0, 0.5]
    box = inception_box((100, 1000), numbers, settings=AugmentSettings(min_area=0.05, max_aspect=9))
    assert box[2] == box[3] == 71


def test_a_crop_is_the_box():
    pixels = noise(9, 8)
    np.testing.assert_array_equal(crop(pixels, (2, 1, 3, 4)), pixels[2:5, 1:5])


# Resizing against other code


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
    how = default_preprocessing(size, channels=channels, resize="squash")
    how = Preprocessing(**vars(how) | {"interpolation": interpolation})
    resized = resize(pixels, size, how)
    difference = np.abs(resized - np.stack(planes, axis=2))
    assert resized.dtype == np.uint8
    assert difference.mean() < 0.1
    assert difference.max() <= 2


@pytest.mark.parametrize("name", REFERENCES)
def test_squashing_without_antialias_equals_the_official_input_pipeline(shared, name):
    with np.load(shared / f"reference/preprocess_{name}.npz") as reference:
        pixels = reference["decoded_tf_uint8"]
        expected = reference["vit_jax_input_pipeline_eval_224"]
    how = default_preprocessing((224, 224), channels=3, resize="squash", antialias=False)
    result = preprocess(pixels, how)
    assert result.dtype == np.float32
    images = torch.from_numpy(result).permute(2, 0, 1)[None]
    normalised = normalise(images, how)[0].permute(1, 2, 0).numpy()
    assert np.abs(normalised - expected).max() < 0.01 * GREY_LEVEL


@pytest.mark.parametrize("name", REFERENCES)
def test_squashing_with_antialias_equals_big_vision(shared, name):
    with np.load(shared / f"reference/preprocess_{name}.npz") as reference:
        pixels = reference["decoded_tf_uint8"]
        expected = (reference["big_vision_resize224_antialias"] + 1) * 127.5
    result = preprocess(pixels, default_preprocessing((224, 224), channels=3, resize="squash"))
    # There the result is truncated to whole grey levels, here it is rounded.
    difference = result - expected
    assert difference.min() >= -1.01
    assert difference.max() <= 1.01
    assert difference.mean() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_jpeg_decodes_to_what_tensorflow_makes_of_it(shared, name):
    with np.load(shared / f"reference/preprocess_{name}.npz") as reference:
        pixels = decode_image(reference["jpeg_bytes"].tobytes()).astype(int)
        difference = np.abs(pixels - reference["decoded_tf_uint8"])
    assert difference.mean() < 1.1
    assert difference.max() <= 8


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_squashing_without_antialias_is_torch_interpolate_in_floats(interpolation):
    pixels = noise(50, 31)
    how = default_preprocessing((20, 40), channels=3, resize="squash", antialias=False)
    how = Preprocessing(**vars(how) | {"interpolation": interpolation})
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    expected = F.interpolate(image, (20, 40), mode=interpolation, align_corners=False)[0]
    result = preprocess(pixels, how)
    np.testing.assert_array_equal(result, expected.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
@pytest.mark.parametrize("antialias", [True, False])
def test_any_number_of_channels_is_resized_channel_by_channel(channels, antialias):
    pixels = noise(40, 30, channels)
    together = resize(
        pixels, (16, 24), default_preprocessing((16, 24), channels=channels, antialias=antialias)
    )
    alone = default_preprocessing((16, 24), channels=1, antialias=antialias)
    planes = [resize(pixels[:, :, [c]], (16, 24), alone) for c in range(channels)]
    difference = np.abs(together.astype(float) - np.concatenate(planes, axis=2))
    assert together.shape == (16, 24, channels)
    assert difference.max() <= 1


@pytest.mark.parametrize(("antialias", "dtype"), [(True, np.uint8), (False, np.float32)])
def test_an_image_of_the_right_size_keeps_its_pixels(antialias, dtype):
    how = default_preprocessing((12, 9), channels=3, antialias=antialias)
    result = preprocess(noise(12, 9), how)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, noise(12, 9))


def test_pixels_that_can_not_be_written_are_resized_too(recwarn):
    pixels = noise(12, 9)
    pixels.flags.writeable = False
    assert preprocess(pixels, default_preprocessing((5, 5), channels=3)).shape == (5, 5, 3)
    assert not recwarn.list


def test_the_shorter_side_is_resized_and_the_centre_cut():
    pixels = photograph(60, 100)
    how = default_preprocessing((30, 30), channels=3)
    squash = default_preprocessing((30, 30), channels=3, resize="squash")
    np.testing.assert_array_equal(preprocess(pixels, how), preprocess(pixels[:, 20:80], squash))


@settings(max_examples=50, deadline=None)
@given(
    SIZES, st.tuples(st.integers(1, 40), st.integers(1, 40)), st.sampled_from(["shorter", "squash"])
)
def test_every_image_gets_the_size_of_the_model(image_size, size, how):
    result = preprocess(noise(*image_size), default_preprocessing(size, channels=3, resize=how))
    assert result.shape == (*size, 3)


# Channels


def test_colour_becomes_grey_as_in_pillow():
    pixels = noise(64, 64)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(match_channels(pixels, 1)[:, :, 0], expected)


def test_grey_becomes_colour_by_repetition():
    pixels = noise(6, 5, 1)
    np.testing.assert_array_equal(match_channels(pixels, 3), np.repeat(pixels, 3, axis=2))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_fitting_channels_are_left_alone(channels):
    pixels = noise(6, 5, channels)
    assert match_channels(pixels, channels) is pixels


@pytest.mark.parametrize(("own", "wanted"), [(4, 3), (3, 4), (2, 1), (1, 4), (13, 3), (3, 13)])
def test_channels_of_no_one_meaning_are_an_error(own, wanted):
    with pytest.raises(DataError, match=f"an image of {own} channels for a model of {wanted}"):
        match_channels(noise(6, 5, own), wanted)


# Random changes


def numbers_with(down=0.5, right=0.5, flip=0.9):
    return np.array([*np.full(NUM_UNIFORMS - 3, 0.5), down, right, flip])


PLAIN = default_preprocessing((12, 12), channels=3)


@pytest.mark.parametrize(("number", "mirrored"), [(0.0, True), (0.49, True), (0.5, False)])
def test_half_of_the_images_are_mirrored(number, mirrored):
    pixels = noise(12, 12)
    result = augment(
        pixels,
        numbers_with(flip=number),
        settings=AugmentSettings(crop="none"),
        preprocessing=PLAIN,
    )
    np.testing.assert_array_equal(result, pixels[:, ::-1] if mirrored else pixels)


def test_no_image_is_mirrored_when_that_is_off():
    settings_ = AugmentSettings(crop="none", flip=False)
    result = augment(noise(12, 12), numbers_with(flip=0.0), settings=settings_, preprocessing=PLAIN)
    np.testing.assert_array_equal(result, noise(12, 12))


def test_the_random_box_is_cut_and_resized():
    pixels, settings_ = photograph(50, 70), AugmentSettings(flip=False)
    numbers = uniforms(0, 0, np.array([4]), count=NUM_UNIFORMS)[0]
    box = inception_box((50, 70), numbers, settings=settings_)
    expected = resize(crop(pixels, box), PLAIN.size, PLAIN)
    result = augment(pixels, numbers, settings=settings_, preprocessing=PLAIN)
    np.testing.assert_array_equal(result, expected)


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True), st.floats(0, 0.9))
def test_a_shift_moves_the_image_and_repeats_its_edges(down, right, share):
    image = noise(11, 7)
    moved = shift(image, down, right, share=share)
    most_down, most_right = round(11 * share), round(7 * share)
    top = int(down * (2 * most_down + 1)) - most_down
    left = int(right * (2 * most_right + 1)) - most_right
    assert abs(top) <= most_down
    assert abs(left) <= most_right
    rows = np.clip(np.arange(11) + top, 0, 10)
    columns = np.clip(np.arange(7) + left, 0, 6)
    np.testing.assert_array_equal(moved, image[rows][:, columns])


def test_every_shift_is_equally_likely():
    image = np.arange(100, dtype=np.uint8).reshape(10, 10, 1)
    numbers = uniforms(0, 0, np.arange(5000), count=2)
    middles = [int(shift(image, a, b, share=0.2)[5, 5, 0]) for a, b in numbers]
    values, counts = np.unique(middles, return_counts=True)
    expected = [10 * (5 + down) + 5 + right for down in range(-2, 3) for right in range(-2, 3)]
    assert values.tolist() == expected
    assert ((counts - 200) ** 2 / 200).sum() < 56.4  # 99.98 % point for 24 degrees of freedom


@settings(max_examples=60, deadline=None)
@given(SIZES, NUMBERS, st.sampled_from(["inception", "shift", "none"]), st.booleans())
def test_an_augmented_image_has_the_size_and_type_of_the_models_input(
    image_size, numbers, kind, antialias
):
    how = default_preprocessing((8, 12), channels=3, antialias=antialias)
    result = augment(
        noise(*image_size), numbers, settings=AugmentSettings(crop=kind), preprocessing=how
    )
    assert result.shape == (8, 12, 3)
    assert result.dtype == (np.uint8 if antialias else np.float32)


# The model's range


@pytest.mark.parametrize("channels", [1, 3, 13])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalising_is_the_stated_formula(channels, dtype):
    images = torch.from_numpy(noise(4, 5, channels)).permute(2, 0, 1)[None].to(dtype)
    mean, std = np.linspace(0.2, 0.6, channels), np.linspace(0.1, 0.3, channels)
    how = Preprocessing(
        (4, 5), mean=tuple(mean.tolist()), std=tuple(std.tolist()), channels=channels
    )
    expected = (noise(4, 5, channels) / 255 - mean) / std
    result = normalise(images, how)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result[0].permute(1, 2, 0), expected, atol=1e-5)


def test_by_default_black_is_minus_one_and_white_is_one():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)
    result = normalise(images, default_preprocessing((1, 2), channels=1))
    assert result.flatten().tolist() == [-1.0, 1.0]
