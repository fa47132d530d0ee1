import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.runs import noise, photograph

from vitral.config.preprocessing import GEOMETRIES, default_preprocessing
from vitral.config.run import AugmentSettings
from vitral.data.geometry import (
    CROP_TRIES,
    NUM_UNIFORMS,
    Geometry,
    apply_to_boxes,
    apply_to_image,
    apply_to_mask,
    box_without_far_ends,
    central_box,
    central_geometry,
    draw_geometry,
    draw_shift,
    flips,
    inception_box,
    random_box,
    resized_size,
)
from vitral.data.jpeg import REDUCTIONS
from vitral.data.order import uniforms
from vitral.errors import DataError, RequestError

SIDES = st.integers(1, 300)
SIZES = st.tuples(SIDES, SIDES)
NUMBERS = hnp.arrays(np.float64, NUM_UNIFORMS, elements=st.floats(0, 1, exclude_max=True))
CROPS = st.sampled_from(["inception", "random", "shift", "none"])


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
    down, right = ((whole - part) // 2 for whole, part in zip(image_size, left, strict=True))
    assert box_without_far_ends(image_size, (8, 8)) == (down, right, *left)


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


# Draws


def numbers_with(down=0.5, right=0.5, flip=0.9):
    return np.array([*np.full(NUM_UNIFORMS - 3, 0.5), down, right, flip])


def test_half_of_the_images_are_mirrored():
    numbers = uniforms(0, 0, np.arange(10_000), count=NUM_UNIFORMS)
    assert abs(flips(numbers).mean() - 0.5) < 0.02
    rows = np.stack([numbers_with(flip=number) for number in (0.0, 0.49, 0.5, 0.99)])
    assert flips(rows).tolist() == [True, True, False, False]
    assert flips(np.pad(rows, ((0, 0), (0, 8)))).tolist() == [True, True, False, False]


def test_every_place_of_a_random_crop_occurs_as_often_and_none_is_left_of_a_whole_one():
    numbers = uniforms(0, 0, np.arange(9000), count=NUM_UNIFORMS)
    boxes = [random_box((384, 384), row, share=384 / 448) for row in numbers]
    assert {size for size, _ in boxes} == {(448, 448)}
    assert {box[2:] for _, box in boxes} == {(384, 384)}
    tops = np.bincount([box[0] for _, box in boxes])
    assert len(tops) == 65
    assert tops.min() > 80
    assert random_box((9, 7), numbers[0], share=1.0) == ((9, 7), (0, 0, 9, 7))


@settings(max_examples=50)
@given(NUMBERS, st.floats(0, 0.9))
def test_a_shift_moves_the_image_and_repeats_its_edges(numbers, share):
    image, how = noise(11, 7), how_of((11, 7))
    settings_ = AugmentSettings(crop="shift", shift=share)
    geometry = draw_geometry((11, 7), numbers, settings=settings_, preprocessing=how)
    down, right = geometry.shift
    assert abs(down) <= round(11 * share)
    assert abs(right) <= round(7 * share)
    rows = np.clip(np.arange(11) - down, 0, 10)
    columns = np.clip(np.arange(7) - right, 0, 6)
    np.testing.assert_array_equal(apply_to_image(image, geometry, how), image[rows][:, columns])


def test_every_shift_is_equally_likely():
    drawn = uniforms(0, 0, np.arange(5000), count=NUM_UNIFORMS)
    shifts = [draw_shift((10, 10), row, share=0.2) for row in drawn]
    values, counts = np.unique(shifts, axis=0, return_counts=True)
    expected = [[down, right] for down in range(-2, 3) for right in range(-2, 3)]
    assert values.tolist() == expected
    assert ((counts - 200) ** 2 / 200).sum() < 56.4  # 99.98 % point for 24 degrees of freedom


def test_the_first_number_of_a_shift_moves_farthest_down_and_right():
    numbers = np.zeros(NUM_UNIFORMS)
    assert draw_shift((40, 20), numbers, share=0.1) == (4, 2)
    assert draw_shift((40, 20), numbers + 0.9999, share=0.1) == (-4, -2)


def test_a_geometry_holds_what_was_drawn():
    how = how_of((12, 12), crop_share=0.75)
    numbers = numbers_with(down=0.99, right=0.0, flip=0.4)
    expected = {
        "inception": Geometry(
            (50, 70), inception_box((50, 70), numbers, settings=AugmentSettings()), (12, 12),
            (0, 0, 12, 12), flip=True,
        ),
        "random": Geometry((50, 70), (0, 0, 50, 70), (14, 14), (2, 0, 12, 12), flip=True),
        "shift": Geometry(
            (50, 70), (0, 0, 50, 70), (16, 22), (2, 5, 12, 12), shift=(-1, 1), flip=True
        ),
        "none": Geometry((50, 70), (0, 0, 50, 70), (16, 22), (2, 5, 12, 12), flip=True),
    }  # fmt: skip
    for crop, geometry in expected.items():
        settings_ = AugmentSettings(crop=crop)
        drawn = draw_geometry((50, 70), numbers, settings=settings_, preprocessing=how)
        assert drawn == geometry
        assert drawn.size == (12, 12)


@settings(max_examples=50)
@given(NUMBERS, CROPS, st.booleans())
def test_an_image_is_mirrored_as_its_batch_says_and_only_if_it_may_be(numbers, crop, flip):
    settings_ = AugmentSettings(crop=crop, flip=flip)
    drawn = draw_geometry((50, 70), numbers, settings=settings_, preprocessing=how_of((12, 12)))
    assert drawn.flip == (flip and flips(numbers[None])[0])


def test_numbers_behind_the_geometrys_change_nothing():
    numbers = uniforms(0, 0, np.array([5]), count=NUM_UNIFORMS + 8)[0]
    for crop in ("inception", "random", "shift"):
        wanted = {"settings": AugmentSettings(crop=crop), "preprocessing": how_of((12, 12))}
        first, second = (
            draw_geometry((50, 70), drawn, **wanted) for drawn in (numbers, numbers[:NUM_UNIFORMS])
        )
        assert first == second


@pytest.mark.parametrize(
    ("image_size", "fields", "geometry"),
    [
        ((50, 70), {"crop_share": 0.75}, ((0, 0, 50, 70), (16, 22), (2, 5, 12, 12))),
        ((3, 800), {}, ((0, 352, 3, 96), (12, 384), (0, 186, 12, 12))),
        ((3, 800), {"resize": "squash"}, ((0, 0, 3, 800), (12, 12), (0, 0, 12, 12))),
    ],
)
def test_in_evaluation_the_centre_is_cut(image_size, fields, geometry):
    expected = Geometry(image_size, *geometry)
    assert central_geometry(image_size, how_of((12, 12), **fields)) == expected


# Of an image that is decoded smaller

LARGE_SIDES = st.integers(60, 2000)


def smaller(image_size, reduction):
    return tuple(math.ceil(side / reduction) for side in image_size)


@settings(max_examples=60)
@given(st.tuples(LARGE_SIDES, LARGE_SIDES), NUMBERS)
def test_a_reduced_crop_still_fills_the_model(image_size, numbers):
    how, settings_ = how_of((24, 32)), AugmentSettings(min_area=0.08)
    geometry = draw_geometry(image_size, numbers, settings=settings_, preprocessing=how)
    reduction = geometry.max_reduction
    spare = min(geometry.crop[2] / 24, geometry.crop[3] / 32)
    assert reduction in REDUCTIONS
    assert reduction == 1 or reduction <= spare
    assert reduction == 8 or spare < 2 * reduction
    _, _, height, width = geometry.reduced(smaller(image_size, reduction)).crop
    assert height >= min(24, geometry.crop[2])
    assert width >= min(32, geometry.crop[3])


@settings(max_examples=60)
@given(st.tuples(LARGE_SIDES, LARGE_SIDES), NUMBERS, CROPS, st.sampled_from(REDUCTIONS))
def test_a_reduced_geometry_is_the_same_on_the_smaller_image(image_size, numbers, crop, reduction):
    settings_, how = AugmentSettings(crop=crop), how_of((12, 12))
    geometry = draw_geometry(image_size, numbers, settings=settings_, preprocessing=how)
    size = smaller(image_size, reduction)
    reduced = geometry.reduced(size)
    assert reduced.source == size
    assert reduced._replace(source=image_size, crop=geometry.crop) == geometry
    (top, left, height, width), (y, x, h, w) = geometry.crop, reduced.crop
    exact = np.array([top, left, top + height, left + width]) / reduction
    assert np.abs(exact - [y, x, y + h, x + w]).max() <= 0.5


@settings(max_examples=60)
@given(st.tuples(st.integers(1, 20), st.integers(1, 20)), NUMBERS, CROPS)
def test_a_reduced_crop_has_a_pixel_at_least(image_size, numbers, crop):
    settings_, how = AugmentSettings(crop=crop), how_of((12, 12))
    geometry = draw_geometry(image_size, numbers, settings=settings_, preprocessing=how)
    height, width = smaller(image_size, 8)
    y, x, h, w = geometry.reduced((height, width)).crop
    assert 0 <= y < y + h <= height
    assert 0 <= x < x + w <= width


def test_a_crop_is_reduced_to_whole_pixels_halves_up():
    geometry = Geometry((101, 80), (3, 5, 60, 33), (12, 12), (0, 0, 12, 12), (1, 2), flip=True)
    halved = Geometry((51, 40), (2, 3, 30, 16), (12, 12), (0, 0, 12, 12), (1, 2), flip=True)
    assert geometry.reduced((51, 40)) == halved
    assert geometry.reduced((101, 80)) is geometry


def test_a_size_that_no_decoder_gives_is_refused():
    geometry = central_geometry((101, 80), how_of((12, 12)))
    with pytest.raises(DataError, match="50 x 40 pixels are no image of 101 x 80 decoded at 1/1, "):
        geometry.reduced((50, 40))


# Images


def test_an_image_of_another_size_is_refused():
    how = how_of((12, 12))
    geometry = central_geometry((50, 70), how)
    with pytest.raises(DataError, match="an image of 70 x 50 pixels for a geometry of 50 x 70: "):
        apply_to_image(photograph(70, 50), geometry, how)


# Masks

# Values of every size of image and crop that a mask or box may follow.
ANY = {
    "image_size": st.tuples(st.integers(1, 60), st.integers(1, 60)),
    "numbers": NUMBERS,
    "crop": CROPS,
    "size": st.tuples(st.integers(1, 30), st.integers(1, 30)),
}


def drawn(image_size, numbers, crop, size, **fields):
    """A geometry, and the preprocessing that it was drawn for."""
    how = default_preprocessing(size, channels=2, rounding="none", **fields)
    settings_ = AugmentSettings(crop=crop, min_area=0.2, shift=0.3, crop_share=0.7)
    return draw_geometry(image_size, numbers, settings=settings_, preprocessing=how), how


def as_seen(image, geometry, how):
    """An image (h, w) of what the model sees, mirrored as in its batch."""
    pixels = np.repeat(image[:, :, None], 2, axis=2).astype(np.float32)
    result = apply_to_image(pixels, geometry, how)[:, :, 0]
    return result[:, ::-1] if geometry.flip else result


def rectangle(image_size, box):
    mask = np.zeros(image_size, np.uint8)
    top, left, bottom, right = box
    mask[top:bottom, left:right] = 1
    return mask


def identity(height, width, **fields):
    return Geometry((height, width), (0, 0, height, width), (height, width),
                    (0, 0, height, width), **fields)  # fmt: skip


def test_a_mask_by_hand():
    mask = np.arange(24).reshape(4, 6)
    # Rows 1 and 2 become four, columns 2 to 5 become two, of centres 1 and 3 of the crop.
    geometry = Geometry((4, 6), (1, 2, 2, 4), (4, 2), (0, 0, 4, 2))
    expected = [[9, 11], [9, 11], [15, 17], [15, 17]]
    np.testing.assert_array_equal(apply_to_mask(mask, geometry, fill=0), expected)
    flipped = geometry._replace(flip=True)
    expected = [[11, 9], [11, 9], [17, 15], [17, 15]]
    np.testing.assert_array_equal(apply_to_mask(mask, flipped, fill=0), expected)
    part = geometry._replace(box=(1, 1, 2, 1))
    np.testing.assert_array_equal(apply_to_mask(mask, part, fill=0), [[11], [17]])


def test_what_a_shift_lets_in_is_filled():
    mask = np.arange(6, dtype=np.uint8).reshape(2, 3)
    geometry = identity(2, 3, shift=(1, -2))
    expected = [[255, 255, 255], [2, 255, 255]]
    np.testing.assert_array_equal(apply_to_mask(mask, geometry, fill=255), expected)
    flipped = apply_to_mask(mask, geometry._replace(flip=True), fill=255)
    np.testing.assert_array_equal(flipped, np.flip(expected, axis=1))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.int64, np.float32])
def test_a_mask_mirrored_twice_is_itself_and_keeps_its_type(dtype):
    mask = noise(7, 5)[:, :, 0].astype(dtype)
    geometry = identity(7, 5, flip=True)
    once = apply_to_mask(mask, geometry, fill=0)
    np.testing.assert_array_equal(once, mask[:, ::-1])
    twice = apply_to_mask(once, geometry, fill=0)
    assert twice.dtype == dtype
    np.testing.assert_array_equal(twice, mask)


@settings(max_examples=60, deadline=None)
@given(**ANY, antialias=st.booleans(), axis=st.sampled_from([0, 1]))
def test_a_mask_takes_its_pixels_from_where_the_image_does(antialias, axis, **values):
    geometry, how = drawn(**values, antialias=antialias)
    positions = np.indices(geometry.source)[axis]  # each pixel says where it lies
    mask = apply_to_mask(positions, geometry, fill=-1)
    image = as_seen(positions, geometry, how)
    assert mask.shape == image.shape == geometry.size
    # Antialias averages over a pixel of the result, at edges over less.
    step = geometry.crop[axis + 2] / geometry.resized[axis]
    near = max(step, 1) if antialias else 0.501
    assert np.abs(mask - image)[mask >= 0].max(initial=0) <= near


@settings(max_examples=60, deadline=None)
@given(**ANY, antialias=st.booleans(), corners=st.tuples(*[st.floats(0, 1)] * 4))
def test_regions_of_a_mask_stay_aligned_with_the_image(antialias, corners, **values):
    geometry, how = drawn(**values, antialias=antialias)
    height, width = geometry.source
    (top, bottom), (left, right) = sorted(corners[:2]), sorted(corners[2:])
    box = round(top * height), round(left * width), round(bottom * height), round(right * width)
    regions = rectangle(geometry.source, box)
    mask = apply_to_mask(regions, geometry, fill=255)
    image = as_seen(255 * regions, geometry, how) > 127.5
    rows = far_from((box[0], box[2]), geometry, axis=0)
    columns = far_from((box[1], box[3]), geometry, axis=1)
    columns = columns[::-1] if geometry.flip else columns
    counts = (mask != 255) & rows[:, None] & columns
    np.testing.assert_array_equal(image[counts], mask[counts] == 1)


def far_from(borders, geometry, *, axis):
    """Which rows or columns, before they are mirrored, are a pixel of both images from borders."""
    scale = geometry.resized[axis] / geometry.crop[axis + 2]
    borders = (np.array(borders) - geometry.crop[axis]) * scale
    borders += geometry.shift[axis] - geometry.box[axis]
    centres = np.arange(geometry.size[axis]) + 0.5
    return (np.abs(centres[:, None] - borders) > max(scale, 1)).all(axis=1)


def test_what_is_no_mask_of_the_image_is_refused():
    geometry = identity(4, 6)
    with pytest.raises(DataError, match="a mask of 6 x 4 pixels for a geometry of 4 x 6: give"):
        apply_to_mask(np.zeros((6, 4)), geometry, fill=0)
    with pytest.raises(DataError, match=re.escape("a mask of shape (4, 6, 3): give one label")):
        apply_to_mask(np.zeros((4, 6, 3)), geometry, fill=0)


@pytest.mark.parametrize(("dtype", "fill"), [(np.int8, 255), (np.uint8, -1), (bool, 255)])
def test_a_fill_that_the_mask_can_not_hold_is_refused(dtype, fill):
    with pytest.raises(RequestError, match=f"fill={fill} does not fit into masks of "):
        apply_to_mask(np.zeros((4, 6), dtype), identity(4, 6), fill=fill)


# Boxes


def test_boxes_by_hand():
    # The right half of an image of 10 x 20, twice as high and half as wide.
    geometry = Geometry((10, 20), (0, 10, 10, 10), (20, 5), (0, 0, 20, 5))
    boxes = np.array([[12, 1, 16, 3], [6, 0, 14, 10], [0, 0, 10, 10]], float)
    result, kept = apply_to_boxes(boxes, geometry)
    np.testing.assert_array_equal(result, [[1, 2, 3, 6], [0, 0, 2, 20], [0, 0, 0, 20]])
    assert kept.tolist() == [True, True, False]
    result, _ = apply_to_boxes(boxes, geometry._replace(flip=True))
    np.testing.assert_array_equal(result, [[2, 2, 4, 6], [3, 0, 5, 20], [5, 0, 5, 20]])


@pytest.mark.parametrize(("min_area", "kept"), [(0.0, True), (0.5, True), (0.51, False)])
def test_a_box_is_kept_if_enough_of_its_area_is_left(min_area, kept):
    geometry = Geometry((10, 20), (0, 10, 10, 10), (20, 5), (0, 0, 20, 5))
    _, found = apply_to_boxes(np.array([[6.0, 0, 14, 10]]), geometry, min_area=min_area)
    assert found.tolist() == [kept]


def test_a_box_ends_where_the_image_ended_before_it_was_shifted():
    geometry = identity(4, 10)._replace(box=(0, 0, 4, 5), shift=(1, -2))
    result, kept = apply_to_boxes(np.array([[0.0, 0, 8, 4]]), geometry)
    np.testing.assert_array_equal(result, [[0, 1, 3, 4]])
    assert kept.all()


@settings(max_examples=60, deadline=None)
@given(**ANY, corners=st.tuples(*[st.floats(0, 1)] * 4))
def test_a_box_follows_the_rectangle_in_its_mask(corners, **values):
    geometry, _ = drawn(**values)
    height, width = geometry.source
    (top, bottom), (left, right) = sorted(corners[:2]), sorted(corners[2:])
    top, left = int(top * (height - 1)), int(left * (width - 1))
    bottom, right = max(round(bottom * height), top + 1), max(round(right * width), left + 1)
    mask = apply_to_mask(rectangle(geometry.source, (top, left, bottom, right)), geometry, fill=0)
    ((x1, y1, x2, y2),), kept = apply_to_boxes(np.array([[left, top, right, bottom]]), geometry)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    # A side of less than a pixel may lie between the centres of two.
    assert len(rows) or min(x2 - x1, y2 - y1) <= 1
    found = [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]] if len(rows) else []
    assert kept.item() or not found
    for box in found:
        np.testing.assert_allclose(box, [x1, y1, x2, y2], atol=0.501)


@settings(max_examples=60)
@given(**ANY, eighths=hnp.arrays(int, (5, 4), elements=st.integers(-80, 560)))
def test_boxes_are_mirrored_with_the_image(eighths, **values):
    geometry, _ = drawn(**values)
    boxes = np.sort(eighths.reshape(-1, 2, 2) / 8, axis=1).reshape(-1, 4)
    plain, kept = apply_to_boxes(boxes, geometry._replace(flip=False))
    flipped, same = apply_to_boxes(boxes, geometry._replace(flip=True))
    np.testing.assert_array_equal(kept, same)
    back, _ = apply_to_boxes(flipped, identity(*geometry.size, flip=True))
    np.testing.assert_allclose(back, plain, atol=1e-9)
    assert (plain >= 0).all()
    assert (plain <= np.tile(geometry.size[::-1], 2)).all()


@settings(max_examples=60)
@given(**ANY, eighths=hnp.arrays(int, (5, 4), elements=st.integers(0, 480)))
def test_the_area_of_a_whole_box_grows_as_the_image_does(eighths, **values):
    geometry, _ = drawn(**values)
    boxes = np.sort(eighths.reshape(-1, 2, 2) / 8, axis=1).reshape(-1, 4)
    result, kept = apply_to_boxes(boxes, geometry, min_area=1.0)
    growth = geometry.resized[0] / geometry.crop[2] * geometry.resized[1] / geometry.crop[3]
    before, after = ((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, result))
    np.testing.assert_allclose(after[kept], before[kept] * growth, rtol=1e-6)
    assert (after <= before * growth + 1e-6).all()


def test_an_image_without_boxes_has_none():
    boxes, kept = apply_to_boxes(np.zeros((0, 4)), identity(4, 6, flip=True))
    assert boxes.shape == (0, 4)
    assert kept.shape == (0,)


def test_what_are_no_boxes_is_refused():
    with pytest.raises(DataError, match=re.escape("boxes of shape (4,): give (M, 4) of x1, y1")):
        apply_to_boxes(np.zeros(4), identity(4, 6))
    wrong = np.array([[0, 0, 1, 1], [5, 4, 2, 2], [np.nan, 0, 1, 1]])
    with pytest.raises(DataError, match=re.escape("box 1 is [5.0, 4.0, 2.0, 2.0]: give x1, y1")):
        apply_to_boxes(wrong, identity(4, 6))
    with pytest.raises(DataError, match="box 0 is "):
        apply_to_boxes(wrong[2:], identity(4, 6))
    with pytest.raises(RequestError, match="min_area=1.5: give a share of the box's area, 0 to 1"):
        apply_to_boxes(wrong[:1], identity(4, 6), min_area=1.5)
