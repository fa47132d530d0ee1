import io

import numpy as np
import pytest
import torch
from PIL import Image

from vitral.data.sources.arrays import ArrayStore, ObjectStore, TiledStore, as_pixels
from vitral.data.sources.find import list_source
from vitral.errors import DataError, RequestError

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
    multi_hot = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])
    listing = list_source(write_npz(tmp_path, images=IMAGES, labels=multi_hot))
    assert listing.labels == [("0", "2"), (), ("1",), ("0", "1", "2")]
    named = list_source(
        write_npz(tmp_path, images=IMAGES, labels=multi_hot > 0, classes=list("abc"))
    )
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


def test_arrays_without_channels_get_one():
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    store = ArrayStore(images, path="a.npz")
    assert list(store.names) == store.names[0:2] == ["0", "1"]
    assert store.stamp(0) is None
    np.testing.assert_array_equal(store.read(1), images[1, :, :, None])


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 3), np.uint8),
        np.zeros((2, 3, 4, 3, 1), np.uint8),
        np.array(3, np.uint8),
    ],
)
def test_arrays_of_another_form_are_refused(images):
    with pytest.raises(DataError, match=r"wanted \(N, H, W\) or \(N, H, W, C\)"):
        ArrayStore(images, path="a.npz")


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float64])
def test_arrays_of_more_than_eight_bits_keep_their_values(dtype):
    images = (np.arange(24).reshape(2, 3, 4) * 100).astype(dtype)
    pixels = ArrayStore(images, path="a.npz").read(1)
    np.testing.assert_array_equal(pixels[:, :, 0], images[1])


def test_arrays_of_no_numbers_are_refused():
    with pytest.raises(DataError, match=r"a\.npz: images of values of type <U1"):
        ArrayStore(np.full((2, 3, 4), "a"), path="a.npz")


PIXELS = np.linspace(0, 255, 60).astype(np.uint8).reshape(4, 5, 3)


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        PIXELS / 255,
        (PIXELS / 255).astype(np.float32),
        Image.fromarray(PIXELS),
        torch.tensor(PIXELS).permute(2, 0, 1),
        torch.tensor(PIXELS).permute(2, 0, 1) / 255,
        (torch.tensor(PIXELS).permute(2, 0, 1) / 255).requires_grad_(),
    ],
)
def test_every_usual_form_of_an_image_becomes_the_same_pixels(image):
    np.testing.assert_array_equal(as_pixels(image), PIXELS)


@pytest.mark.parametrize(
    "image",
    [
        PIXELS[:, :, 0],
        Image.fromarray(PIXELS[:, :, 0]),
        torch.tensor(PIXELS[:, :, 0]),
        torch.tensor(PIXELS[None, :, :, 0]),
        (torch.tensor(PIXELS[:, :, 0]) / 255).requires_grad_(),
    ],
)
def test_grey_images_get_one_channel(image):
    np.testing.assert_array_equal(as_pixels(image), PIXELS[:, :, :1])


def test_floats_are_rounded():
    image = np.array([[0.0, 0.298, 0.302, 0.999, 1.0]])  # 75.99, 77.01 and 254.7
    assert as_pixels(image).ravel().tolist() == [0, 76, 77, 255, 255]


@pytest.mark.parametrize("image", [PIXELS > 20, Image.fromarray(PIXELS[:, :, 0] > 20)])
def test_truth_values_are_black_and_white(image):
    np.testing.assert_array_equal(as_pixels(image)[:, :, 0], (PIXELS[:, :, 0] > 20) * 255)


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr", "HSV"])
def test_pil_images_in_other_colours_become_rgb(picture, mode):
    image = picture(mode=mode)
    np.testing.assert_array_equal(as_pixels(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_pil_images_keep_their_alpha(picture, mode):
    image = picture(mode=mode)
    np.testing.assert_array_equal(as_pixels(image), np.asarray(image))


def test_a_pil_image_is_turned_as_its_file_is(picture, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(encode(picture(), "PNG", exif=exif)))
    np.testing.assert_array_equal(as_pixels(image), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PIXELS * 1.0, "floats from 0 to 255: give uint8, or floats in 0..1"),
        (PIXELS / 255 - 0.5, "floats from -0.5 to"),
        (np.full((2, 2), np.nan), "floats from nan to nan"),
        (PIXELS[None], r"shape \(1, 4, 5, 3\): give \(H, W\) or"),
        (np.full((2, 2), 1j), "type complex128"),
        ("a path", r"shape \(\): give"),
        (None, r"shape \(\): give"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(DataError, match=message):
        as_pixels(image)


def test_whole_numbers_of_more_than_eight_bits_keep_their_values():
    deep = as_pixels(Image.fromarray(np.full((2, 3), 40_000, np.uint16)))
    assert (deep.dtype, deep.shape, int(deep[0, 0, 0])) == (np.uint16, (2, 3, 1), 40_000)
    assert as_pixels(PIXELS.astype(np.int64)).dtype == np.int32


def test_an_object_gives_the_image_of_an_example():
    store = ObjectStore([(PIXELS, 3), (PIXELS[::-1], 1)])
    assert list(store.names) == ["0", "1"]
    assert store.stamp(0) is None
    np.testing.assert_array_equal(store.read(1), PIXELS[::-1])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_pil_image_with_transparency_is_put_on_white_for_a_model_without(channels):
    image = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert as_pixels(image, channels=channels).shape == (2, 2, channels)
    assert (as_pixels(image, channels=channels) == 255).all()
    assert as_pixels(image, channels=4).shape == (2, 2, 4)


def test_grey_images_are_tiled_when_read():
    grey = np.array([[[0, 1]], [[2, 255]]], np.uint8)
    store = TiledStore(ArrayStore(grey, path="a.npz"))
    assert list(store.names) == ["0", "1"]
    np.testing.assert_array_equal(store.read(1), [[[2, 2, 2], [255, 255, 255]]])
    assert store.read(1).flags.writeable
    assert store.stamp(0) is None
    assert store.blocks() is None
