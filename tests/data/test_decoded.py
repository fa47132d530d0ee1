import numpy as np
import pytest

from vitral.data.dataset import open_dataset
from vitral.data.decode import UnreadableImageError, decode_image
from vitral.data.decoded import DecodedStore, decoded_bytes
from vitral.data.sources.arrays import ArrayStore
from vitral.data.sources.listing import FileInfo
from vitral.data.sources.store import FolderStore


@pytest.fixture
def store(tmp_path, fill, counting):
    names = ["a/1.png", "a/2.jpg", "b/3.png"]
    return counting(FolderStore(fill(tmp_path, names), names))


def test_an_image_is_decoded_once(store):
    cached = DecodedStore(store, channels=3)
    for _ in range(3):
        for number in range(3):
            expected = decode_image(store.store.read(number))
            np.testing.assert_array_equal(cached.read(number), expected)
    assert store.reads == [0, 1, 2]
    assert cached.names == store.names
    assert cached.stamp(1) == store.stamp(1)
    assert cached.blocks() is None


def test_a_damaged_image_is_tried_again_and_never_kept(tmp_path, fill):
    fill(tmp_path, {"a.png": b"no image"})
    cached = DecodedStore(FolderStore(tmp_path, ["a.png"]), channels=3)
    for _ in range(2):
        with pytest.raises(UnreadableImageError):
            cached.read(0)


def test_arrays_are_not_kept_again():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    cached = DecodedStore(ArrayStore(images, path="memory"), channels=3)
    assert np.shares_memory(cached.read(0), images)


def test_the_bytes_of_decoded_images_are_known_beforehand(tmp_path, fill):
    data = open_dataset(fill(tmp_path, [f"{c}/{n}.png" for c in "ab" for n in range(20)]))
    assert data.decoded_bytes() == 40 * 10 * 12 * 3
    cached = data.keeping_decoded()
    assert cached.fingerprint() == data.fingerprint()
    for split, part in cached.splits.items():
        assert part.read(0).shape == (10, 12, 3)
        assert part.labels.tolist() == data.splits[split].labels.tolist()


def test_deep_images_take_more_and_arrays_nothing():
    deep = FileInfo(height=10, width=10, depth="uint16", format="PNG")
    array = FileInfo(height=10, width=10, format="array")
    assert decoded_bytes([deep, array], channels=1) == 200
    assert decoded_bytes([deep, FileInfo()], channels=1) is None
