import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.data.levels import check_deep, choose_levels, to_eight_bit_range
from vitral.errors import DataError


def test_eight_bits_stay_as_they_are():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert to_eight_bit_range(pixels, (0, 10)) is pixels


@pytest.mark.parametrize(
    ("dtype", "white"), [(np.uint16, 65535), (np.int32, 2**31 - 1), (np.float32, 1)]
)
def test_without_levels_the_type_says_what_white_is(dtype, white):
    ramp = np.linspace(0, white, 5).astype(dtype)[None, :, None]
    scaled = to_eight_bit_range(ramp, None)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[0, :, 0], [0, 63.75, 127.5, 191.25, 255], atol=0.01)


def test_levels_become_black_and_white_and_what_lies_beyond_is_cut_off():
    values = np.array([0, 100, 300, 500, 4095], np.uint16)[None, :, None]
    scaled = to_eight_bit_range(values, (100, 500))
    np.testing.assert_allclose(scaled[0, :, 0], [0, 0, 127.5, 255, 255])


@pytest.mark.parametrize(
    ("lowest", "highest", "whole", "levels"),
    [
        (0, 255, True, (0, 255)),
        (291, 694, True, (0, 1023)),
        (0, 1023, True, (0, 1023)),
        (0, 1024, True, (0, 4095)),
        (0, 16000, True, (0, 16383)),
        (5, 65535, True, (0, 65535)),
        (0, 70_000, True, (0, 70_000)),
        (-1024, 3071, True, (-1024, 3071)),
        (0.2, 0.9, False, (0, 1)),
        (0.0, 200.5, False, (0, 255)),
        (0.0, 3000.0, False, (0, 3000)),
        (-0.5, 0.5, False, (-0.5, 0.5)),
    ],
)
def test_levels_are_the_fewest_bits_or_the_usual_range_of_floats(lowest, highest, whole, levels):
    assert choose_levels(lowest, highest, whole=whole) == levels


@given(st.floats(-1e6, 1e6), st.floats(0.001, 1e6), st.booleans())
def test_chosen_levels_hold_all_that_was_seen(lowest, span, whole):
    black, white = choose_levels(lowest, lowest + span, whole=whole)
    assert black <= lowest < lowest + span <= white


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([True, False]), np.uint8),
        (np.array([1, 2], np.uint8), np.uint8),
        (np.array([1, 2], np.uint16), np.uint16),
        (np.array([-1, 2], np.int16), np.int32),
        (np.array([1, 2], np.int64), np.int32),
        (np.array([1, 2], np.float64), np.float32),
        (np.array([1, 2], np.float16), np.float32),
    ],
)
def test_types_are_brought_to_the_four_that_are_read(values, dtype):
    assert check_deep(values).dtype == dtype


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([np.inf]), "no finite numbers"),
        (np.array(["a"]), "type <U1, wanted whole numbers or floats"),
        (np.array([2**31]), "beyond 32 bits"),
    ],
)
def test_other_types_and_values_are_told(values, message):
    with pytest.raises(DataError, match=message):
        check_deep(values)
