from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from support.runs import noise, photograph

from vitral.config.preprocessing import (
    INTERPOLATIONS,
    RESIZES,
    ROUNDINGS,
    Preprocessing,
    default_preprocessing,
)
from vitral.config.run import AugmentSettings
from vitral.data.decode import decode_image
from vitral.data.geometry import NUM_UNIFORMS, draw_geometry, inception_box
from vitral.data.order import uniforms
from vitral.data.randaugment import randaugment
from vitral.data.resize import crop, resize
from vitral.data.transforms import (
    augment,
    decode_and_augment,
    decode_with_geometry,
    match_model,
    moves_pixels,
    normalise,
    num_uniforms,
    preprocess,
)
from vitral.errors import DataError

SIDES = st.integers(1, 300)
SIZES = st.tuples(SIDES, SIDES)
NUMBERS = hnp.arrays(np.float64, NUM_UNIFORMS, elements=st.floats(0, 1, exclude_max=True))
REFERENCES = ["n01644373_tree_frog", "n01756291_sidewinder", "n02085936_Maltese_dog",
              "n02692877_airship"]  # fmt: skip
GREY_LEVEL = 1 / 127.5


def how_of(size, **fields):
    return default_preprocessing(size, channels=3, **fields)


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


def test_of_an_extremely_long_image_only_the_middle_is_resized():
    pixels, how = noise(3, 800), how_of((8, 8))
    middle = preprocess(pixels[:, 352:448], how)
    np.testing.assert_array_equal(preprocess(pixels, how), middle)
    squash = how_of((8, 8), resize="squash")
    assert (preprocess(pixels, squash) != preprocess(pixels[:, 352:448], squash)).any()


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
        result = preprocess(deep, replace(way, levels=(0.0, 25_500.0)))
        assert result.dtype == (np.uint8 if rounding == "round" else np.float32)
        np.testing.assert_allclose(result, expected, atol=0.6)  # torch rounds 8 bits on the way


def test_deep_colour_becomes_grey_by_the_same_weights():
    pixels = noise(8, 8)
    grey = match_model(pixels.astype(np.float32), of_channels(1, levels=(0.0, 255.0)))
    np.testing.assert_allclose(grey, match_model(pixels, of_channels(1)), atol=0.51)


# Random changes


def numbers_with(down=0.5, right=0.5, flip=0.9):
    return np.array([*np.full(NUM_UNIFORMS - 3, 0.5), down, right, flip])


PLAIN = default_preprocessing((12, 12), channels=3)


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
    ("fields", "moves"), [({}, False), ({"mixup": 0.2, "cutmix": 1.0}, False),
                          ({"crop": "shift"}, False), ({"randaugment": 1}, True)],
)  # fmt: skip
def test_randaugment_moves_pixels_that_a_geometry_does_not_tell(fields, moves):
    assert moves_pixels(AugmentSettings(**fields)) is moves


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


# From the file


def ramps(height, width):
    """An image whose colours say where each pixel lies."""
    down, right = np.mgrid[:height, :width]
    return np.stack([down, right, (down + right) // 2], axis=2).astype(np.uint8)


def decoded_and_augmented(content, drawn, *, crop_="inception", scaled=True, size=(24, 24)):
    wanted = {"settings": AugmentSettings(crop=crop_, min_area=0.5), "preprocessing": how_of(size)}
    result, geometry = decode_and_augment(content, drawn, **wanted, scaled=scaled)
    pixels, same = decode_with_geometry(content, drawn, **wanted, scaled=scaled)
    assert same == geometry
    assert geometry == draw_geometry(geometry.source, drawn, **wanted)
    return result, geometry, pixels


# Of these, the first try that fits a fourth of the image is not the first one that fits the whole.
@pytest.mark.parametrize("index", [17, 29, 73, 80, 108])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_an_image_decoded_smaller_gets_the_box_of_the_whole(encode, index, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = Image.fromarray(ramps(160, 200))
    back = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
    stored = shown.transpose(back) if back is not None else shown
    content = encode(stored, "JPEG", exif=exif, quality=95)
    drawn = uniforms(0, 0, np.array([index]), count=NUM_UNIFORMS)[0]
    exact, _, whole = decoded_and_augmented(content, drawn, scaled=False)
    result, geometry, pixels = decoded_and_augmented(content, drawn)
    assert geometry.source == whole.shape[:2] == (160, 200)
    assert pixels.shape == (40, 50, 3)
    assert np.abs(result.astype(int) - exact).max() < 8
    other = inception_box((40, 50), drawn, settings=AugmentSettings(min_area=0.5))
    difference = np.abs(np.subtract(other, geometry.reduced((40, 50)).crop))
    assert difference.max() > 3


@pytest.mark.parametrize("kind", ["PNG", "array"])
def test_only_jpegs_are_decoded_smaller(encode, kind):
    content = ramps(160, 200)
    content = encode(Image.fromarray(content), "PNG") if kind == "PNG" else content
    result, geometry, pixels = decoded_and_augmented(content, np.full(NUM_UNIFORMS, 0.5))
    assert geometry.max_reduction == 4
    np.testing.assert_array_equal(pixels, ramps(160, 200))
    assert result.shape == (24, 24, 3)


@pytest.mark.parametrize("crop_", ["random", "shift", "none"])
def test_without_an_inception_crop_images_are_decoded_whole(encode, crop_):
    content = encode(Image.fromarray(ramps(160, 200)), "JPEG")
    drawn = np.full(NUM_UNIFORMS, 0.5)
    assert decoded_and_augmented(content, drawn, crop_=crop_)[2].shape == (160, 200, 3)


def test_a_jpeg_that_pillow_decodes_whole_keeps_its_box(encode, monkeypatch):
    content = encode(Image.fromarray(ramps(160, 200)), "JPEG")
    drawn = np.full(NUM_UNIFORMS, 0.5)
    exact, _, _ = decoded_and_augmented(content, drawn, scaled=False)
    monkeypatch.setattr("vitral.data.jpeg.simplejpeg", None)
    result, _, pixels = decoded_and_augmented(content, drawn)
    assert pixels.shape == (160, 200, 3)
    np.testing.assert_array_equal(result, exact)
