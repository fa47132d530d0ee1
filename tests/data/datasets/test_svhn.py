import numpy as np
import pytest

from vitral.data.datasets.svhn import read_svhn
from vitral.data.datasets.table import TASKS
from vitral.errors import DataError


@pytest.fixture
def files(mat, random):
    images = random.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    labels = np.array([1, 10, 3, 9, 10, 2], np.uint8)
    stored = images.transpose(1, 2, 3, 0)
    contents = {
        "train_32x32.mat": mat(X=stored[..., :4], y=labels[:4, None]),
        "test_32x32.mat": mat(X=stored[..., 4:], y=labels[4:, None]),
    }
    return images, contents


def test_ten_stands_for_zero(tmp_path, fill, place_of, files):
    images, contents = files
    fill(tmp_path, contents)
    published = read_svhn(place_of(TASKS["svhn"]))
    assert published.classes == tuple("0123456789")
    assert published.parts["train"].labels == ["1", "0", "3", "9"]
    assert published.parts["test"].labels == ["0", "2"]
    np.testing.assert_array_equal(published.parts["test"].store.read(0), images[4])


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, r"does not hold images X \(32, 32, 3, N\)"),
        ({"X": np.zeros((3, 32, 32, 2), np.uint8), "y": [1, 2]}, "does not hold images X"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [0, 2]}, "labels from 0 to 2, not 1 to 10"),
    ],
)
def test_other_variables_are_an_error(tmp_path, fill, place_of, files, mat, variables, message):
    _, contents = files
    fill(tmp_path, contents | {"test_32x32.mat": mat(**variables)})
    with pytest.raises(DataError, match=message):
        read_svhn(place_of(TASKS["svhn"]))


@pytest.mark.parametrize("content", [b"", b"no mat", b"MATLAB 5.0 and no more" + bytes(200)])
def test_damage_is_an_error(tmp_path, fill, place_of, files, content):
    fill(tmp_path, files[1] | {"train_32x32.mat": content})
    with pytest.raises(DataError, match=r"train_32x32\.mat can't be read as a MATLAB file"):
        read_svhn(place_of(TASKS["svhn"]))
