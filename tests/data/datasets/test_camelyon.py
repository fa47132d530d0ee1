import gzip
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from vitral.data.datasets.camelyon import file_name, read_camelyon
from vitral.data.datasets.table import TASKS
from vitral.errors import DataError, RequestError

LABELS = {"train": [0, 1, 1, 0], "valid": [1, 0], "test": [0, 0]}


@pytest.fixture
def images(random):
    return {
        split: random.integers(0, 256, (len(labels), 96, 96, 3), dtype=np.uint8)
        for split, labels in LABELS.items()
    }


def hdf5(path, **arrays):
    """The bytes of a file of arrays, cut into pieces and compressed as HDF5 can."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, chunks=True, compression="gzip")
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.fixture
def files(tmp_path, images):
    contents = {}
    for split, labels in LABELS.items():
        column = np.array(labels, np.uint8).reshape(-1, 1, 1, 1)
        contents[file_name(split, "x")] = hdf5(tmp_path / "x", x=images[split])
        contents[file_name(split, "y")] = hdf5(tmp_path / "y", y=column)
    return contents


def write(fill, tmp_path, files, *, packed=True):
    fill(
        tmp_path,
        {name: gzip.compress(content) for name, content in files.items()}
        if packed
        else {name.removesuffix(".gz"): content for name, content in files.items()},
    )


@pytest.mark.parametrize("packed", [True, False])
def test_images_and_labels_of_every_split_are_read(tmp_path, fill, place_of, files, images, packed):
    write(fill, tmp_path, files, packed=packed)
    published = read_camelyon(place_of(TASKS["camelyon"]))
    assert published.classes == ("no tumor", "tumor")
    parts = published.parts
    assert parts["train"].labels == ["no tumor", "tumor", "tumor", "no tumor"]
    assert parts["validation"].labels == ["tumor", "no tumor"]
    assert parts["train"].keys == ["train_0", "train_1", "train_2", "train_3"]
    assert parts["validation"].keys == ["valid_0", "valid_1"]
    assert parts["test"].keys == ["test_0", "test_1"]
    np.testing.assert_array_equal(parts["validation"].store.read(1), images["valid"][1])
    stamps = [parts["train"].store.stamp(number) for number in range(4)]
    assert len(set(stamps)) == 4
    assert list(parts["train"].store.names) == ["0", "1", "2", "3"]
    assert parts["train"].store.blocks() is None


def test_several_threads_may_read(tmp_path, fill, place_of, files, images):
    write(fill, tmp_path, files)
    store = read_camelyon(place_of(TASKS["camelyon"])).parts["train"].store
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(store.read, [0, 1, 2, 3] * 20))
    np.testing.assert_array_equal(np.stack(read), np.concatenate([images["train"]] * 20))


@pytest.mark.parametrize(
    ("content", "arrays", "message"),
    [
        ("x", {"y": np.zeros((2, 96, 96, 3), np.uint8)}, "holds x of None None, wanted uint8"),
        ("x", {"x": np.zeros((2, 96, 96, 3), "f4")}, r"holds x of float32 \(2, 96, 96, 3\)"),
        ("x", {"x": np.zeros((2, 96, 96), np.uint8)}, r"wanted uint8 \(N, H, W, C\)"),
        ("x", {"x": np.zeros((3, 96, 96, 3), np.uint8)}, r"wanted \(2, 96, 96, 3\) by the labels"),
        ("x", {"x": np.zeros((2, 64, 64, 3), np.uint8)}, r"holds images \(2, 64, 64, 3\)"),
        ("y", {"y": np.array([0, 2])}, "labels from 0 to 2, not 0 and 1"),
        ("y", {"x": np.array([0, 1])}, "its array y can't be read"),
    ],
)
def test_other_arrays_are_an_error(tmp_path, fill, place_of, files, content, arrays, message):
    write(fill, tmp_path, files | {file_name("valid", content): hdf5(tmp_path / "z", **arrays)})
    with pytest.raises(DataError, match=message):
        read_camelyon(place_of(TASKS["camelyon"]))


@pytest.mark.parametrize("content", ["x", "y"])
def test_damage_is_an_error(tmp_path, fill, place_of, files, content):
    name = file_name("train", content)
    write(fill, tmp_path, files | {name: files[name][:300]})
    with pytest.raises(DataError, match=f"{name} can't be read as an HDF5 file"):
        read_camelyon(place_of(TASKS["camelyon"]))


def test_a_damaged_image_can_not_be_read(tmp_path, fill, place_of, files, images):
    name = file_name("train", "x")
    plain = bytearray(hdf5(tmp_path / "x", x=images["train"]))
    plain[-50_000:-40_000] = bytes(10_000)
    write(fill, tmp_path, files | {name: bytes(plain)})
    store = read_camelyon(place_of(TASKS["camelyon"])).parts["train"].store
    with pytest.raises(OSError, match="read"):
        for number in range(4):
            store.read(number)


def test_h5py_is_asked_for(tmp_path, fill, place_of, files, monkeypatch):
    write(fill, tmp_path, files)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(RequestError, match=r"need h5py: pip install 'vitral\[vtab\]'"):
        read_camelyon(place_of(TASKS["camelyon"]))
