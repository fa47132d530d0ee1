import numpy as np
import pytest

from vitral.data.datasets.flowers import read_flowers102
from vitral.data.datasets.published import class_names
from vitral.data.datasets.table import DATASETS
from vitral.errors import DataError

LABELS = np.array([102, 1, 1, 77, 5, 5], np.uint8)
SETS = {
    "trnid": np.array([[2, 6]], np.uint16),
    "valid": np.array([[3]], np.uint16),
    "tstid": np.array([[5, 1, 4]], np.uint16),
}


@pytest.fixture
def write(tmp_path, pack, mat):
    def run(*, labels=LABELS, sets=None):
        images = {f"jpg/image_{n:05}.jpg": str(n).encode() for n in range(1, 7)}
        pack(tmp_path / "102flowers.tar", images).rename(tmp_path / "102flowers.tgz")
        (tmp_path / "imagelabels.mat").write_bytes(mat(labels=labels))
        (tmp_path / "setid.mat").write_bytes(mat(**(SETS if sets is None else sets)))

    return run


def test_numbers_count_from_one(write, place_of):
    write()  # the archive is a plain tar, whatever its name says
    published = read_flowers102(place_of(DATASETS["flowers102"]))
    names = class_names("flowers102")
    assert published.classes == names
    assert len(names) == 102
    expected = {"train": [2, 6], "validation": [3], "test": [5, 1, 4]}
    for split, numbers in expected.items():
        part = published.parts[split]
        assert part.labels == [names[LABELS[n - 1] - 1] for n in numbers]
        assert part.keys == [f"image_{n:05}.jpg" for n in numbers]
        assert [part.store.read(i) for i in range(len(numbers))] == [
            str(n).encode() for n in numbers
        ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([0, 1, 1, 1, 1, 1])}, "does not hold labels from 1 to 102"),
        ({"labels": np.array([103, 1, 1, 1, 1, 1])}, "does not hold labels from 1 to 102"),
        ({"sets": {"trnid": [1]}}, r"setid\.mat does not hold valid, images 1 to 6"),
        ({"sets": SETS | {"tstid": [7]}}, r"setid\.mat does not hold tstid, images 1 to 6"),
    ],
)
def test_bad_lists_are_an_error(write, place_of, changes, message):
    write(**changes)
    with pytest.raises(DataError, match=message):
        read_flowers102(place_of(DATASETS["flowers102"]))
