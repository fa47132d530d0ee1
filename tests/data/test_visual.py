import io
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from vitral.data.check.duplicates import LIKENESS, RADIUS
from vitral.data.decode import decode_image
from vitral.data.visual import likeness, thumbnail, visual_hash

SETS = ["dtd10/train.tar", "flowers102/test.tar", "imagenet_sample/images.tar", "rsscn7/train.tar"]


@pytest.fixture(scope="module")
def photos(shared):
    """Real images, forty of each of four sets."""
    found = []
    for name in SETS:
        with tarfile.open(shared / "data" / name) as tar:
            members = [member for member in tar if member.isfile()][:40]
            found += [decode_image(tar.extractfile(member).read()) for member in members]
    return found


def bits_between(first, second):
    return (int(first, 16) ^ int(second, 16)).bit_count()


def _compressed(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(file)


CHANGES = {
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "twice the size": lambda image: image.resize((image.width * 2, image.height * 2)),
    "compressed again": _compressed,
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "of less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_looks_the_same_is_found(photos, change):
    found = 0
    for pixels in photos:
        changed = np.asarray(CHANGES[change](Image.fromarray(pixels)))
        near = bits_between(visual_hash(pixels), visual_hash(changed)) <= RADIUS
        found += near and likeness(thumbnail(pixels), thumbnail(changed)) >= LIKENESS
    assert found >= 0.95 * len(photos)


def test_no_two_photographs_look_the_same(photos):
    hashes = [visual_hash(pixels) for pixels in photos]
    pairs = [(i, j) for i in range(len(hashes)) for j in range(i)]
    near = [(i, j) for i, j in pairs if bits_between(hashes[i], hashes[j]) <= RADIUS]
    alike = [likeness(thumbnail(photos[i]), thumbnail(photos[j])) for i, j in near]
    assert not any(own >= LIKENESS for own in alike)


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 2, 3, 4, 7]))
def test_an_image_of_any_shape_has_a_hash(height, width, channels):
    random = np.random.default_rng(height * 71 + width)
    pixels = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
    is_flat = np.unique(thumbnail(pixels)).size == 1
    assert len(visual_hash(pixels)) == (0 if is_flat else 16)
    assert thumbnail(pixels).shape == (32, 32)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_values_of_any_type_look_the_same(photos, dtype):
    for pixels in photos[:10]:
        grey = np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
        deep = grey.astype(dtype) * dtype(3) + dtype(7)
        assert bits_between(visual_hash(grey), visual_hash(deep)) <= 2


def test_one_value_looks_like_nothing():
    assert visual_hash(np.full((9, 9, 3), 200, np.uint8)) == ""
    flat = np.zeros((32, 32), np.float32)
    assert likeness(flat, np.eye(32, dtype=np.float32)) == 0


def test_likeness_is_the_correlation():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 32, 32)).astype(np.float32)
    assert likeness(one, 3 * one + 5) == pytest.approx(1)
    assert likeness(one, -one) == pytest.approx(-1)
    expected = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    assert likeness(one, other) == pytest.approx(expected, abs=1e-5)
