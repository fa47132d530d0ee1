import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import noise, photograph
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from vitral.data.decode import decode_image
from vitral.data.jpeg import REDUCTIONS
from vitral.data.order import uniforms
from vitral.data.randaugment import randaugment
from vitral.data.resize import crop, resize
from vitral.data.transforms import (
    CROP_TRIES,
    NUM_UNIFORMS,
    augment,
    central_box,
    crop_reduction,
    flips,
    inception_box,
    match_model,
    normalise,
    num_uniforms,
    preprocess,
    random_box,
    resized_size,
    shift,
    without_far_ends,
)
from vitral.errors import DataError
from vitral.spec.preprocessing import (
    GEOMETRIES,
    INTERPOLATIONS,
    RESIZES,
    ROUNDINGS,
    Preprocessing,
    default_preprocessing,
)
from vitral.spec.run import AugmentSettings

SIDES = st.integers(1, 300)
SIZES = st.tuples(SIDES, SIDES)
NUMBERS = hnp.arrays(np.float64, NUM_UNIFORMS, elements=st.floats(0, 1, exclude_max=True))
REFERENCES = ["n01644373_tree_frog", "n01756291_sidewinder", "n02085936_Maltese_dog",
              "n02692877_airship"]  # fmt: skip
GREY_LEVEL = 1 / 127.5


# Sizes and boxes


def how_of(size, **fields):
    return default_preprocessing(size, channels=3, **fields)


@pytest.mark.parametrize(
    ("image_size", "size", "fields", "resized"),
    [
        ((480, 640), (224, 224), {}, (224, 298)),  # 298.67
        ((480, 640), (224, 224), {"geometry": "huggingface"}, (224, 298)),
        ((480, 640), (224, 224), {"geometry": "tensorflow"}, (224, 299)),
        ((640, 480), (224, 224), {}, (298, 224)),
        ((480, 640), (224, 224), {"crop_share": 0.875}, (256, 341)),
        ((480, 640), (224, 224), {"crop_share": 0.9}, (248, 330)),  # timm: floor(248.89)
        ((422, 422), (224, 224), {"crop_share": 224 / 422}, (422, 422)),
        ((64, 301), (32, 32), {"geometry": "tensorflow"}, (32, 150)),  # 150.5, to even
        ((64, 303), (32, 32), {"geometry": "tensorflow"}, (32, 152)),  # 151.5
        ((192, 195), (224, 224), {"geometry": "tensorflow"}, (224, 227)),  # 227.5, less in float32
        ((480, 640), (224, 448), {}, (336, 448)),
        ((480, 640), (448, 224), {}, (448, 597)),  # 597.33
        ((487, 640), (224, 448), {}, (341, 448)),  # 340.9: timm's rule of sides that differ
        ((487, 640), (224, 448), {"geometry": "huggingface"}, (340, 448)),
        ((487, 640), (224, 448), {"geometry": "tensorflow"}, (341, 448)),
        ((28, 28), (28, 28), {}, (28, 28)),
        ((1, 3), (32, 32), {}, (32, 96)),
        ((480, 640), (224, 224), {"resize": "squash"}, (224, 224)),
        ((480, 640), (224, 112), {"resize": "squash", "crop_share": 0.875}, (256, 128)),
    ],
)
def test_the_size_to_which_the_whole_is_resized(image_size, size, fields, resized):
    assert resized_size(image_size, how_of(size, **fields)) == resized


@given(SIZES, SIZES, st.floats(0.05, 1), st.sampled_from(GEOMETRIES))
def test_a_resized_image_just_covers_the_crop_and_keeps_its_shape(
    image_size, size, crop_share, geometry
):
    how = how_of(size, crop_share=crop_share, geometry=geometry)
    resized = resized_size(image_size, how)
    least = [math.floor(side / crop_share + 1e-6) for side in size]
    assert resized[0] >= least[0] >= size[0]
    assert resized[1] >= least[1] >= size[1]
    assert resized[0] == least[0] or resized[1] == least[1]
    scale = max(wanted / side for wanted, side in zip(least, image_size, strict=True))
    assert all(abs(a - b * scale) < 1 for a, b in zip(resized, image_size, strict=True))


@pytest.mark.parametrize(
    ("geometry", "corners"),
    [("torchvision", [0, 0, 1, 2, 2, 2]), ("huggingface", [0, 0, 1, 1, 2, 2]),
     ("tensorflow", [0, 0, 1, 1, 2, 2])],
)  # fmt: skip
def test_the_corner_of_the_central_box(geometry, corners):
    how = how_of((8, 6), geometry=geometry)
    found = [central_box((8 + spare, 6), how) for spare in range(6)]
    assert found == [(corner, 0, 8, 6) for corner in corners]
    found = [central_box((8, 6 + spare), how) for spare in range(6)]
    assert found == [(0, corner, 8, 6) for corner in corners]


@given(SIZES, SIZES, st.floats(0.05, 1), st.sampled_from(GEOMETRIES))
def test_the_central_box_lies_in_the_middle(image_size, size, crop_share, geometry):
    how = how_of(size, crop_share=crop_share, geometry=geometry)
    resized = resized_size(image_size, how)
    top, left, height, width = central_box(resized, how)
    below, right = resized[0] - top - height, resized[1] - left - width
    assert (height, width) == size
    assert min(top, left, below, right) >= 0
    assert abs(top - below) <= 1
    assert abs(left - right) <= 1


@pytest.mark.parametrize(
    ("image_size", "left"),
    [((2, 300), (2, 64)), ((301, 2), (65, 2)), ((2, 64), (2, 64)), ((50, 70), (50, 70))],
)
def test_only_the_ends_of_extremely_long_images_are_cut_off(image_size, left):
    pixels = noise(*image_size)
    result = without_far_ends(pixels, (8, 8))
    down, right = ((whole - part) // 2 for whole, part in zip(image_size, left, strict=True))
    np.testing.assert_array_equal(
        result, pixels[down : image_size[0] - down, right : image_size[1] - right]
    )
    assert result.shape[:2] == left


def test_of_an_extremely_long_image_only_the_middle_is_resized():
    pixels, how = noise(3, 800), how_of((8, 8))
    middle = preprocess(pixels[:, 352:448], how)
    np.testing.assert_array_equal(preprocess(pixels, how), middle)
    squash = how_of((8, 8), resize="squash")
    assert (preprocess(pixels, squash) != preprocess(pixels[:, 352:448], squash)).any()


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


# Preprocessing against other code

ONTO_GREY = {"rounding": "truncate", "antialias": False}
# In grey levels, from the README of the reference data: the largest difference, and the largest
# share of values that may differ by more than half a level.
FLOATS, LEVELS, FLAT = (0.01, 0.0), (1.0, 0.03), (1.0, 0.2)
OTHERS = {
    "vit_jax_input_pipeline_eval_224": (
        {"resize": "squash", "antialias": False, "rounding": "none"}, FLOATS,
    ),
    "vit_jax_PreprocessImages_224": ({"resize": "squash", **ONTO_GREY}, LEVELS),
    "vit_jax_PreprocessImages_224_crop": ({"geometry": "tensorflow", **ONTO_GREY}, LEVELS),
    "big_vision_resize_small256_central_crop224": (
        {"crop_share": 0.875, "geometry": "tensorflow", "interpolation": "area",
         "rounding": "truncate"}, FLAT,
    ),
    "big_vision_resize256_central_crop224": (
        {"resize": "squash", "crop_share": 0.875, "geometry": "tensorflow", **ONTO_GREY}, LEVELS,
    ),
    "big_vision_resize224_antialias": ({"resize": "squash", "rounding": "truncate"}, LEVELS),
}  # fmt: skip


def reference_levels(shared, image, name, how, *, decode):
    """What we and what they make of an image, in grey levels."""
    with np.load(shared / f"reference/preprocess_{image}.npz") as reference:
        pixels = (
            decode_image(reference["jpeg_bytes"].tobytes())
            if decode
            else reference["decoded_tf_uint8"]
        )
        expected = reference[name] / GREY_LEVEL
    images = torch.from_numpy(np.ascontiguousarray(preprocess(pixels, how))).permute(2, 0, 1)[None]
    return normalise(images, how)[0].permute(1, 2, 0).numpy() / GREY_LEVEL, expected


@pytest.mark.parametrize("image", REFERENCES)
@pytest.mark.parametrize("name", OTHERS)
def test_preprocessing_equals_the_original_codes(shared, image, name):
    fields, (largest, most) = OTHERS[name]
    ours, theirs = reference_levels(shared, image, name, how_of((224, 224), **fields), decode=False)
    difference = np.abs(ours - theirs)
    assert difference.max() < largest + 0.001
    assert (difference > 0.5).mean() <= most


@pytest.mark.parametrize("image", REFERENCES)
@pytest.mark.parametrize("name", OTHERS)
def test_preprocessing_of_a_file_is_near_to_the_original_codes(shared, image, name):
    how = how_of((224, 224), **OTHERS[name][0])
    ours, theirs = reference_levels(shared, image, name, how, decode=True)
    assert np.abs(ours - theirs).mean() < 1.1
    assert np.abs(ours - theirs).max() < 8


@pytest.mark.parametrize("image", REFERENCES)
def test_sums_in_tensorflows_order_truncate_to_the_same_levels(shared, image):
    name = "big_vision_resize224_antialias"
    how = how_of((224, 224), **OTHERS[name][0])
    ours, theirs = reference_levels(shared, image, name, how, decode=False)
    assert np.abs(ours - theirs).max() < 0.001


@pytest.mark.parametrize("image", REFERENCES)
def test_a_jpeg_decodes_to_what_tensorflow_makes_of_it(shared, image):
    with np.load(shared / f"reference/preprocess_{image}.npz") as reference:
        pixels = decode_image(reference["jpeg_bytes"].tobytes()).astype(int)
        difference = np.abs(pixels - reference["decoded_tf_uint8"])
    assert difference.mean() < 1.1
    assert difference.max() <= 8


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("crop_share", "shorter"), [(0.875, 256), (0.9, 248), (1.0, 224)])
@pytest.mark.parametrize("image_size", [(375, 500), (500, 333), (301, 240)])
def test_the_shorter_side_is_resized_and_the_centre_cut_as_with_pillow(
    image_size, crop_share, shorter, interpolation
):
    pixels = photograph(*image_size)
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    height, width = (shorter * side // min(image_size) for side in image_size)
    whole = Image.fromarray(pixels).resize((width, height), method[interpolation])
    top, left = round((height - 224) / 2), round((width - 224) / 2)
    expected = np.asarray(whole, int)[top : top + 224, left : left + 224]
    how = how_of((224, 224), crop_share=crop_share, interpolation=interpolation)
    difference = np.abs(preprocess(pixels, how) - expected)
    assert difference.max() <= 2
    assert (difference > 1).mean() < 1e-4
    assert (difference > 0).mean() < 0.02


@pytest.mark.parametrize("resize_", ["squash", "shorter"])
@pytest.mark.parametrize(("rounding", "dtype"), [("round", np.uint8), ("none", np.float32)])
def test_an_image_of_the_right_size_keeps_its_pixels(resize_, rounding, dtype):
    result = preprocess(noise(12, 9), how_of((12, 9), resize=resize_, rounding=rounding))
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, noise(12, 9))


@settings(max_examples=50, deadline=None)
@given(
    SIZES, st.tuples(st.integers(1, 40), st.integers(1, 40)), st.sampled_from(RESIZES),
    st.sampled_from(INTERPOLATIONS), st.sampled_from([1.0, 0.875, 0.3]),
)  # fmt: skip
def test_every_image_gets_the_size_of_the_model(image_size, size, how, interpolation, crop_share):
    fields = {"resize": how, "interpolation": interpolation, "crop_share": crop_share}
    assert preprocess(noise(*image_size), how_of(size, **fields)).shape == (*size, 3)


# Channels and levels


def of_channels(channels, **fields):
    return default_preprocessing((4, 4), channels=channels, **fields)


def test_colour_becomes_grey_as_in_pillow():
    pixels = noise(64, 64)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(match_model(pixels, of_channels(1))[:, :, 0], expected)


def test_grey_becomes_colour_by_repetition():
    pixels = noise(6, 5, 1)
    np.testing.assert_array_equal(match_model(pixels, of_channels(3)), np.repeat(pixels, 3, axis=2))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_fitting_channels_are_left_alone(channels):
    pixels = noise(6, 5, channels)
    assert match_model(pixels, of_channels(channels)) is pixels


@pytest.mark.parametrize(("own", "wanted"), [(4, 3), (3, 4), (2, 1), (1, 4), (13, 3), (3, 13)])
def test_channels_of_no_one_meaning_are_an_error(own, wanted):
    with pytest.raises(DataError, match=f"an image of {own} channels for a model of {wanted}"):
        match_model(noise(6, 5, own), of_channels(wanted))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("rounding", ["round", "none"])
def test_deep_pixels_are_prepared_as_their_eight_bit_equals(dtype, rounding):
    """A picture times 100 whose white is 25,500 gives what the picture itself gives."""
    pixels = photograph(60, 50)
    deep = (pixels.astype(np.int64) * 100).astype(dtype)
    for fields in ({}, {"resize": "squash"}, {"antialias": False}, {"interpolation": "area"}):
        way = how_of((20, 30), rounding=rounding, **fields)
        expected = preprocess(pixels, replace(way, rounding="none"))
        given = preprocess(deep, replace(way, levels=(0.0, 25_500.0)))
        assert given.dtype == (np.uint8 if rounding == "round" else np.float32)
        np.testing.assert_allclose(given, expected, atol=0.6)  # torch rounds 8 bits on the way


def test_deep_colour_becomes_grey_by_the_same_weights():
    pixels = noise(8, 8)
    grey = match_model(pixels.astype(np.float32), of_channels(1, levels=(0.0, 255.0)))
    np.testing.assert_allclose(grey, match_model(pixels, of_channels(1)), atol=0.51)


# Random changes


def numbers_with(down=0.5, right=0.5, flip=0.9):
    return np.array([*np.full(NUM_UNIFORMS - 3, 0.5), down, right, flip])


PLAIN = default_preprocessing((12, 12), channels=3)


def test_half_of_the_images_are_mirrored():
    numbers = uniforms(0, 0, np.arange(10_000), count=NUM_UNIFORMS)
    assert abs(flips(numbers).mean() - 0.5) < 0.02
    rows = np.stack([numbers_with(flip=number) for number in (0.0, 0.49, 0.5, 0.99)])
    assert flips(rows).tolist() == [True, True, False, False]
    assert flips(np.pad(rows, ((0, 0), (0, 8)))).tolist() == [True, True, False, False]


def test_the_changes_of_randaugment_come_last_and_move_no_box():
    pixels, settings_ = photograph(50, 70), AugmentSettings(randaugment=2)
    assert num_uniforms(settings_) == NUM_UNIFORMS + 8
    numbers = uniforms(0, 0, np.array([4]), count=num_uniforms(settings_))[0]
    before = augment(
        pixels, numbers[:NUM_UNIFORMS], settings=AugmentSettings(), preprocessing=PLAIN
    )
    result = augment(pixels, numbers, settings=settings_, preprocessing=PLAIN)
    expected = randaugment(before, numbers[NUM_UNIFORMS:], magnitude=10)
    assert (expected != before).any()
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    "fields", [{}, {"interpolation": "area", "rounding": "truncate", "crop_share": 0.5},
               {"antialias": False, "rounding": "none", "interpolation": "bicubic"}],
)  # fmt: skip
def test_the_random_box_is_cut_and_resized_in_the_models_way(fields):
    pixels, settings_ = photograph(50, 70), AugmentSettings(flip=False)
    how = how_of((12, 12), **fields)
    numbers = uniforms(0, 0, np.array([4]), count=NUM_UNIFORMS)[0]
    box = inception_box((50, 70), numbers, settings=settings_)
    expected = resize(crop(pixels, box), how.size, how)
    result = augment(pixels, numbers, settings=settings_, preprocessing=how)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_a_random_crop_is_a_window_of_the_squashed_image(down, right):
    pixels, settings_ = photograph(50, 70), AugmentSettings(crop="random", crop_share=12 / 14)
    squashed = resize(pixels, (14, 14), PLAIN)
    result = augment(pixels, numbers_with(down, right), settings=settings_, preprocessing=PLAIN)
    top, left = int(down * 3), int(right * 3)
    np.testing.assert_array_equal(result, squashed[top : top + 12, left : left + 12])


def test_every_place_of_a_random_crop_occurs_as_often_and_none_is_left_of_a_whole_one():
    numbers = uniforms(0, 0, np.arange(9000), count=NUM_UNIFORMS)
    boxes = [random_box((384, 384), own, share=384 / 448) for own in numbers]
    assert {size for size, _ in boxes} == {(448, 448)}
    assert {box[2:] for _, box in boxes} == {(384, 384)}
    tops = np.bincount([box[0] for _, box in boxes])
    assert len(tops) == 65
    assert tops.min() > 80
    assert random_box((9, 7), numbers[0], share=1.0) == ((9, 7), (0, 0, 9, 7))


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
@given(
    SIZES, NUMBERS, st.sampled_from(["inception", "shift", "none"]), st.booleans(),
    st.sampled_from(ROUNDINGS),
)  # fmt: skip
def test_an_augmented_image_has_the_size_and_type_of_the_models_input(
    image_size, numbers, kind, antialias, rounding
):
    how = how_of((8, 12), antialias=antialias, rounding=rounding)
    result = augment(
        noise(*image_size), numbers, settings=AugmentSettings(crop=kind), preprocessing=how
    )
    assert result.shape == (8, 12, 3)
    assert result.dtype == (np.float32 if rounding == "none" else np.uint8)


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


@given(SIZES.map(lambda size: (size[0] * 20, size[1] * 20)), NUMBERS)
def test_a_crop_of_a_reduced_image_still_fills_the_model(image_size, numbers):
    how = default_preprocessing((24, 32), channels=3)
    settings_ = AugmentSettings(min_area=0.08)
    reduction = crop_reduction(image_size, numbers, settings=settings_, preprocessing=how)
    box = inception_box(image_size, numbers, settings=settings_, aspect=32 / 24)
    spare = min(box[2] / 24, box[3] / 32)
    assert reduction in REDUCTIONS
    assert reduction == 1 or reduction <= spare
    assert reduction == 8 or spare < 2 * reduction


@pytest.mark.parametrize("crop_", ["shift", "none"])
def test_without_a_random_box_images_are_not_reduced(crop_):
    how = default_preprocessing((24, 24), channels=3)
    settings_ = AugmentSettings(crop=crop_)
    numbers = np.full(NUM_UNIFORMS, 0.5)
    assert crop_reduction((900, 900), numbers, settings=settings_, preprocessing=how) == 1
