import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from support.runs import noise, photograph

from vitral.data import randaugment as module
from vitral.data.order import uniforms
from vitral.data.randaugment import (
    CHANGES,
    SHAPE_CHANGES,
    UNIFORMS_OF_CHANGE,
    Draw,
    randaugment,
)

FULL = Draw(1.0)
BY_NAME = {change.__name__: change for change in CHANGES}
# Where a factor of 1 leaves an image as it is.
NEUTRAL = Draw(0.5)
RAMP = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)


def only(monkeypatch, name):
    monkeypatch.setattr(module, "CHANGES", (BY_NAME[name],))


# All changes alike


@pytest.mark.parametrize("channels", [1, 3, 13])
@pytest.mark.parametrize("name", BY_NAME)
@settings(max_examples=20, deadline=None)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    strength=st.floats(0.5, 3),
    sign=st.sampled_from([-1, 1]),
    place=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)
def test_a_change_keeps_shape_and_type_and_the_image_that_it_was_given(
    name, channels, size, strength, sign, place
):
    image = noise(*size, channels)
    result = BY_NAME[name](image, Draw(strength, sign, *place))
    assert result.shape == image.shape
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(image, noise(*size, channels))


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"solarize"}))
def test_a_change_changes_a_photograph(name):
    image = photograph(40, 60) // 2 + 30
    assert (BY_NAME[name](image, FULL) != image).mean() > 0.05


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_the_two_directions_of_a_change_differ(name):
    image = photograph(40, 60)
    there, back = (BY_NAME[name](image, Draw(1.0, sign)) for sign in (1, -1))
    assert (there != back).any()


@pytest.mark.parametrize("name", BY_NAME)
def test_only_changes_of_shape_move_or_hide_pixels(name):
    """Halves of one colour stay so, but for the line between them, unless pixels move."""
    image = np.full((40, 60, 3), 60, np.uint8)
    image[:, 30:] = 200
    changed = BY_NAME[name](image, Draw(1.0, 1, 0.3, 0.3))
    halves = changed[:, :29], changed[:, 31:]
    stay = all((half == half[:1, :1]).all() for half in halves)
    assert stay == (BY_NAME[name] not in SHAPE_CHANGES)


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"color", "contrast"}))
def test_the_channels_are_changed_each_for_itself(name):
    image = noise(9, 12, channels=3)
    draw = Draw(1.5, -1, 0.3, 0.6)
    alone = [BY_NAME[name](image[:, :, i : i + 1], draw) for i in range(3)]
    np.testing.assert_array_equal(BY_NAME[name](image, draw), np.concatenate(alone, axis=2))


# Changes of values


@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
@pytest.mark.parametrize("strength", [0.5, 1.0, 1.5, 2.0])
def test_enhancements_are_those_of_pillow(name, strength):
    image = photograph(30, 44)
    enhance = getattr(ImageEnhance, name.capitalize())(Image.fromarray(image))
    expected = np.asarray(enhance.enhance(1.8 * strength + 0.1)).astype(int)
    result = BY_NAME[name](image, Draw(strength)).astype(int)
    # Pillow rounds the mean of the grey otherwise: a half more or less, times 2.7.
    assert np.abs(result - expected).max() <= (3 if name == "contrast" else 0)


@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
def test_half_strength_leaves_an_enhanced_image_as_it_is(name):
    image = photograph(30, 44)
    np.testing.assert_array_equal(BY_NAME[name](image, NEUTRAL), image)


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_rgb_is_stretched_as_by_pillow(name):
    image = photograph(30, 44) // 3 + 20
    expected = np.asarray(getattr(ImageOps, name)(Image.fromarray(image)))
    ours = BY_NAME["auto_contrast" if name == "autocontrast" else name]
    np.testing.assert_array_equal(ours(image, FULL), expected)


@pytest.mark.parametrize(("strength", "step"), [(0.5, 64), (1.0, 16), (1.5, 4), (3.0, 1)])
def test_posterize_keeps_the_upper_bits(strength, step):
    result = BY_NAME["posterize"](RAMP, Draw(strength))
    np.testing.assert_array_equal(result, RAMP // step * step)


@pytest.mark.parametrize("strength", [0.5, 0.75, 1.0, 2.0])
def test_solarize_inverts_what_is_bright(strength):
    result = BY_NAME["solarize"](RAMP, Draw(strength)).astype(int)
    is_bright = np.arange(256).reshape(RAMP.shape) >= 256 * strength
    np.testing.assert_array_equal(result, np.where(is_bright, 255 - RAMP, RAMP))


@pytest.mark.parametrize("strength", [0.5, 1.0, 3.0])
def test_solarize_add_brightens_the_darker_half(strength):
    result = BY_NAME["solarize_add"](RAMP, Draw(strength)).astype(int)
    brighter = np.minimum(RAMP.astype(int) + int(110 * strength), 255)
    np.testing.assert_array_equal(result, np.where(RAMP < 128, brighter, RAMP))


def test_invert_swaps_dark_and_bright():
    np.testing.assert_array_equal(BY_NAME["invert"](RAMP, FULL), 255 - RAMP)


def test_channels_that_are_not_rgb_have_no_colour_to_change():
    np.testing.assert_array_equal(BY_NAME["color"](noise(8, 8, 13), FULL), noise(8, 8, 13))


def test_contrast_without_rgb_is_around_each_channels_own_mean():
    image = np.stack([np.full((4, 4), 10), np.full((4, 4), 200)], axis=2).astype(np.uint8)
    np.testing.assert_array_equal(BY_NAME["contrast"](image, FULL), image)


# Changes of place


def from_place(image, rows, columns):
    """Take pixels at whole places (rows, columns), grey where there are none."""
    height, width = image.shape[:2]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    taken = image[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return np.where(inside[:, :, None], taken, 128)


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
@pytest.mark.parametrize("signed", [-1.5, -1.0, 0.73, 2.0])
def test_a_pixel_comes_from_where_the_formula_says(name, signed):
    image = noise(31, 46)
    x, y = np.arange(46) + 0.5, (np.arange(31) + 0.5)[:, None]
    if name == "rotate":
        turn = np.exp(1j * np.radians(30 * signed))
        point = turn * ((x - 23) + 1j * (y - 15.5)) + 23 + 15.5j
        columns, rows = point.real, point.imag
    else:
        columns, rows = {
            "shear_x": (x + 0.3 * signed * y, y + 0 * x),
            "shear_y": (x + 0 * y, y + 0.3 * signed * x),
            "translate_x": (x + signed * 100 / 224 * 46, y + 0 * x),
            "translate_y": (x + 0 * y, y + signed * 100 / 224 * 31),
        }[name]
    expected = from_place(image, np.floor(rows).astype(int), np.floor(columns).astype(int))
    result = BY_NAME[name](image, Draw(abs(signed), 1 if signed > 0 else -1))
    # Pillow counts in 1/65536 of a pixel; a place between two pixels may go either way.
    assert (result == expected).all(axis=2).mean() > 0.99


@pytest.mark.parametrize(
    ("down", "right", "box"),
    [
        (0.5, 0.5, (72, 152, 72, 152)),
        (0.0, 0.0, (0, 40, 0, 40)),
        (0.999, 0.5, (183, 224, 72, 152)),
    ],
)
def test_cutout_fills_a_box_around_a_place(down, right, box):
    image = np.zeros((224, 224, 3), np.uint8)
    top, bottom, left, right_end = box
    expected = image.copy()
    expected[top:bottom, left:right_end] = 128
    result = BY_NAME["cutout"](image, Draw(1.0, 1, down, right))
    np.testing.assert_array_equal(result, expected)


def test_the_size_of_an_image_does_not_change_its_share_that_is_cut_out():
    shares = [
        (BY_NAME["cutout"](np.zeros((side, side, 1), np.uint8), Draw(1.0)) == 128).mean()
        for side in (28, 112, 448)
    ]
    np.testing.assert_allclose(shares, (80 / 224) ** 2, rtol=1e-6)


# The draw


def test_every_change_is_drawn_about_equally_often(monkeypatch):
    counts = dict.fromkeys(BY_NAME, 0)

    def counting(name):
        def change(image, _):
            counts[name] += 1
            return image

        return change

    monkeypatch.setattr(module, "CHANGES", tuple(counting(name) for name in BY_NAME))
    numbers = uniforms(0, 0, np.arange(1600), count=2 * UNIFORMS_OF_CHANGE)
    for row in numbers:
        randaugment(RAMP, row, magnitude=10)
    assert sum(counts.values()) == 3200
    drawn = np.array(list(counts.values()))
    assert ((drawn - 200) ** 2 / 200).sum() < 44.3  # 99.99 % point for 15 degrees of freedom


@pytest.mark.parametrize(("number", "direction"), [(0.49, 1), (0.5, -1)])
def test_half_of_the_changes_go_the_other_way(monkeypatch, number, direction):
    only(monkeypatch, "translate_x")
    image = noise(10, 30)
    result = randaugment(image, np.array([0.0, number, 0.0, 0.0]), magnitude=15)
    np.testing.assert_array_equal(result, BY_NAME["translate_x"](image, Draw(1.5, direction)))


def test_changes_follow_one_another(monkeypatch):
    monkeypatch.setattr(module, "CHANGES", (BY_NAME["invert"], BY_NAME["cutout"]))
    image = noise(10, 10)
    numbers = np.array([[0.9, 0.0, 0.2, 0.8], [0.1, 0.0, 0.0, 0.0]])
    expected = 255 - BY_NAME["cutout"](image, Draw(1.0, 1, 0.2, 0.8))
    np.testing.assert_array_equal(randaugment(image, numbers.ravel(), magnitude=10), expected)


def test_without_numbers_nothing_changes():
    np.testing.assert_array_equal(randaugment(noise(5, 5), np.array([]), magnitude=10), noise(5, 5))


def test_values_without_rounding_keep_their_type(monkeypatch):
    only(monkeypatch, "invert")
    image = np.full((2, 2, 1), 99.6, np.float32)
    result = randaugment(image, np.zeros(UNIFORMS_OF_CHANGE), magnitude=10)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, 155)
