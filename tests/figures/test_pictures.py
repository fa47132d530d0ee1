import io

import numpy as np
import pytest
from PIL import Image

from vitral.figures.pictures import PICTURE_SIZE, overlay_attention, to_picture, to_png


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 9])
def test_any_number_of_channels_becomes_a_picture(channels):
    image = np.random.default_rng(0).integers(0, 256, (6, 9, channels), dtype=np.uint8)
    picture = to_picture(image)
    assert (picture.mode, picture.size) == ("RGB", (PICTURE_SIZE, PICTURE_SIZE * 6 // 9))
    expected = image[..., :3] if channels >= 3 else image[..., :1].repeat(3, -1)
    small = picture.resize((9, 6), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(small), expected)


def test_heat_is_strongest_where_attention_is():
    attention = np.zeros((4, 6), dtype=np.float32)
    attention[1, 4] = 0.5
    picture = Image.new("RGB", (180, 120), (90, 90, 90))
    drawn = np.asarray(overlay_attention(picture, attention)).astype(int)
    changed = np.abs(drawn - 90).sum(axis=-1)
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    assert 30 <= row < 60
    assert 120 <= column < 150
    assert changed[90:, :90].max() == 0


def test_the_same_attention_everywhere_draws_no_heat():
    picture = Image.new("RGB", (40, 40), (10, 200, 30))
    drawn = overlay_attention(picture, np.full((2, 2), 0.25, dtype=np.float32))
    grey = picture.convert("L").convert("RGB")
    assert np.array_equal(np.asarray(drawn), np.asarray(grey))


def test_png_holds_the_pixels():
    picture = to_picture(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(to_png(picture)))), np.asarray(picture))
