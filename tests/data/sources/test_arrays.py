import numpy as np
import pytest

from vitral.data.sources.find import list_source
from vitral.errors import DataError, RequestError

# Arrays

IMAGES = np.arange(4 * 3 * 2, dtype=np.uint8).reshape(4, 3, 2)


def write_npz(root, **arrays):
    np.savez(root / "data.npz", **arrays)
    return root / "data.npz"


def test_arrays_may_have_classes_and_splits(tmp_path):
    path = write_npz(
        tmp_path,
        images=IMAGES,
        labels=[1, 0, 1, 0],
        classes=["dog", "cat"],
        split=["train", "train", "val", "test"],
    )
    listing = list_source(path)
    assert listing.labels == ["cat", "dog", "cat", "dog"]
    assert listing.splits == ["train", "train", "validation", "test"]
    assert listing.classes == ("dog", "cat")
    np.testing.assert_array_equal(listing.store.read(2)[:, :, 0], IMAGES[2])


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array([3, 0, 12, 3]), ["3", "0", "12", "3"]),
        (np.array([3, 0, 12, 3], np.uint8), ["3", "0", "12", "3"]),
        (np.array(["b", "a", "b", "c"]), ["b", "a", "b", "c"]),
    ],
)
def test_labels_of_arrays_are_numbers_or_names(tmp_path, labels, names):
    listing = list_source(write_npz(tmp_path, images=IMAGES, labels=labels))
    assert listing.labels == names
    assert listing.classes is None
    assert listing.splits == [None] * 4


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "has no array 'images': it has none"),
        ({"labels": [1]}, "has no array 'images': it has labels"),
        ({"images": IMAGES, "y": [1]}, "has no array 'labels': it has images, y"),
        ({"images": IMAGES, "labels": [0, 1]}, r"shape \(2,\), wanted one whole number or name"),
        ({"images": IMAGES, "labels": np.zeros((4, 1), int)}, r"shape \(4, 1\)"),
        ({"images": IMAGES, "labels": np.zeros(4)}, "labels of type float64"),
        ({"images": IMAGES, "labels": np.zeros(4, bool)}, "labels of type bool"),
        ({"images": IMAGES * np.nan, "labels": [0] * 4}, "floats that are no finite numbers"),
        ({"images": IMAGES[0], "labels": [0] * 3}, r"shape \(3, 2\), wanted \(N, H, W\)"),
        ({"images": np.uint8(3), "labels": [0]}, r"shape \(\), wanted \(N, H, W\)"),
        (
            {"images": IMAGES, "labels": [0, 1, 2, 0], "classes": ["a", "b"]},
            "labels from 0 to 2 for 2 classes",
        ),
        (
            {"images": IMAGES, "labels": [0, 1, -1, 0], "classes": ["a", "b"]},
            "labels from -1 to 1 for 2 classes",
        ),
        (
            {"images": IMAGES, "labels": [0, 1, 1, 0], "classes": ["a", "a"]},
            "`classes` must be different names",
        ),
        (
            {"images": IMAGES, "labels": [0, 1, 1, 0], "classes": "a"},
            "`classes` must be different names",
        ),
        (
            {"images": IMAGES, "labels": [0] * 4, "split": ["train"] * 3},
            "`split` must name train, validation or test for each of 4 images",
        ),
        (
            {"images": IMAGES, "labels": [0] * 4, "split": ["train"] * 3 + ["fold1"]},
            "for each of 4 images, not 'fold1'",
        ),
        (
            {"images": IMAGES, "labels": [0] * 4, "split": "train"},
            "`split` must name train, validation or test for each of 4 images",
        ),
    ],
)
def test_bad_arrays_are_an_error_that_says_what_is_wrong(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        list_source(write_npz(tmp_path, **arrays))


def test_marks_are_any_number_of_classes(tmp_path):
    marks = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])
    listing = list_source(write_npz(tmp_path, images=IMAGES, labels=marks))
    assert listing.labels == [("0", "2"), (), ("1",), ("0", "1", "2")]
    named = list_source(write_npz(tmp_path, images=IMAGES, labels=marks > 0, classes=list("abc")))
    assert named.labels == [("a", "c"), (), ("b",), ("a", "b", "c")]
    assert named.classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("marks", "classes"), [(np.full((4, 3), 2), None), (np.ones((4, 3), int), ["a", "b"])]
)
def test_marks_that_are_no_marks_are_an_error(tmp_path, marks, classes):
    arrays = {} if classes is None else {"classes": classes}
    with pytest.raises(DataError, match="give 0 or 1 for each image and class"):
        list_source(write_npz(tmp_path, images=IMAGES, labels=marks, **arrays))


def test_pickled_arrays_are_not_opened(tmp_path):
    path = write_npz(tmp_path, images=IMAGES, labels=np.array([0, "a", None, {}], object))
    with pytest.raises(DataError, match=r"can't be read as \.npz.*allow_pickle"):
        list_source(path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4 and no more", b"\x93NUMPY"])
def test_what_is_no_npz_is_an_error(tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"data\.npz can't be read as \.npz"):
        list_source(tmp_path / "data.npz")


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_npz_is_an_error(tmp_path, share):
    path = write_npz(tmp_path, images=IMAGES, labels=[0, 1, 0, 1])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match=r"can't be read as \.npz"):
        list_source(path)


def test_a_damaged_npz_is_an_error(tmp_path):
    np.savez_compressed(tmp_path / "data.npz", images=np.zeros((90, 9, 9), np.uint8), labels=[0])
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[50:80] = b"\xff" * 30
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"can't be read as \.npz"):
        list_source(tmp_path / "data.npz")


def test_a_single_array_named_npz_is_an_error(tmp_path):
    with (tmp_path / "data.npz").open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(DataError, match=r"can't be read as \.npz: it holds one array"):
        list_source(tmp_path / "data.npz")


class Pairs:
    """A data set of the caller's own."""

    def __init__(self, pairs, classes=None):
        self.pairs = pairs
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]


def test_an_object_is_a_source():
    listing = list_source(Pairs([(IMAGES[0], 2), (IMAGES[1], np.int64(11))]))
    assert (listing.source, listing.labels, listing.classes) == ("Pairs of 2", ["2", "11"], None)
    np.testing.assert_array_equal(listing.store.read(1)[:, :, 0], IMAGES[1])


def test_an_object_may_name_its_classes():
    listing = list_source(Pairs([(IMAGES[0], 1), (IMAGES[1], 0)], classes=["dog", "cat"]))
    assert (listing.labels, listing.classes) == (["cat", "dog"], ("dog", "cat"))


def test_labels_of_an_object_may_be_names():
    assert list_source([(IMAGES[0], "cat"), (IMAGES[1], "dog")]).labels == ["cat", "dog"]


@pytest.mark.parametrize("label", [2, -1, 1.5, None, [1, 0]])
def test_a_label_of_an_object_that_is_no_class_is_an_error(label):
    with pytest.raises(DataError, match=r"label .* of example 1"):
        list_source(Pairs([(IMAGES[0], 0), (IMAGES[1], label)], classes=["dog", "cat"]))


@pytest.mark.parametrize("data", [3, None, iter([]), {1, 2}])
def test_other_objects_are_refused(data):
    with pytest.raises(RequestError, match=r"give a path, or a sized object with \[i\]"):
        list_source(data)


def test_arrays_with_channels_first_are_told(tmp_path):
    images, labels = np.zeros((4, 3, 8, 8), np.uint8), np.arange(4)
    np.savez(tmp_path / "first.npz", images=images, labels=labels)
    with pytest.raises(DataError, match=r"look like \(N, C, H, W\), wanted \(N, H, W, C\)"):
        list_source(tmp_path / "first.npz")
