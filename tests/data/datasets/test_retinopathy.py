import io

import numpy as np
import pytest
from PIL import Image

from vitral.data.datasets.names import list_data
from vitral.data.datasets.retinopathy import (
    TEST_LABELS,
    TRAIN_LABELS,
    blur,
    circle_half_widths,
    crop_to_circle,
    encode_prepared,
    eye_radius,
    gaussian_kernel,
    prepare_retina,
    read_retinopathy,
    scale_bilinear,
    subtract_local_average,
)
from vitral.data.datasets.table import TASKS
from vitral.data.decode import decode_image
from vitral.errors import DataError, RequestError

TRAIN = {"10_left": 0, "10_right": 4, "13_left": 2}
TEST = {"1_left": (1, "Private"), "1_right": (0, "Public"), "2_left": (3, "Private")}


@pytest.fixture(scope="module")
def images(picture, encode):
    names = [f"train/{name}.jpeg" for name in TRAIN] + [f"test/{name}.jpeg" for name in TEST]
    return {name: encode(picture(n, size=(30, 40)), "JPEG") for n, name in enumerate(names)}


@pytest.fixture
def tables(tmp_path, fill):
    train = [f"{name},{level}" for name, level in TRAIN.items()]
    test = [f"{name},{level},{usage}" for name, (level, usage) in TEST.items()]
    contents = {
        TRAIN_LABELS: "\n".join(["image,level", *train, ""]).encode(),
        TEST_LABELS: "\r\n".join(["image,level,Usage", *test, ""]).encode(),
    }
    fill(tmp_path, contents)
    return contents


def read(place_of):
    return read_retinopathy(place_of(TASKS["retinopathy"]))


@pytest.mark.parametrize("form", ["archives", "folders"])
def test_images_are_divided_by_the_tables_and_prepared(
    tmp_path, fill, pack, place_of, images, tables, form
):
    if form == "archives":
        for split in ("train", "test"):
            pack(
                tmp_path / f"{split}.zip", {n: c for n, c in images.items() if n.startswith(split)}
            )
    else:
        fill(tmp_path, images)
    published = read(place_of)
    assert published.classes == ("No DR", "Mild", "Moderate", "Severe", "Proliferative DR")
    parts = published.parts
    assert {split: list(part.keys) for split, part in parts.items()} == {
        "train": ["10_left", "10_right", "13_left"],
        "validation": ["1_right"],
        "test": ["1_left", "2_left"],
    }
    assert parts["train"].labels == ["No DR", "Proliferative DR", "Moderate"]
    assert parts["test"].labels == ["Mild", "Severe"]
    store = parts["test"].store
    wanted = encode_prepared(prepare_retina(decode_image(images["test/2_left.jpeg"])))
    assert store.read(1) == wanted
    assert store.stamp(0) != store.stamp(1)
    assert store.stamp(0).endswith("btgraham-300")
    assert store.blocks() is None


def test_prepared_images_are_jpegs_of_quality_72():
    pixels = np.full((40, 50, 3), 90, np.uint8)
    image = Image.open(io.BytesIO(encode_prepared(pixels)))
    assert image.format == "JPEG"
    # The first step of the standard's table, 16, at quality 72.
    assert image.quantization[0][0] == (16 * (200 - 2 * 72) + 50) // 100
    assert image.layer[0][1:3] == (2, 2)
    np.testing.assert_allclose(np.asarray(image), pixels, atol=2)


def test_a_damaged_image_can_not_be_read(tmp_path, fill, place_of, images, tables, encode):
    deep = encode(Image.fromarray(np.zeros((4, 4), np.uint16)), "PNG")
    other = {"train/10_left.jpeg": b"no image", "train/10_right.jpeg": deep}
    fill(tmp_path, {n: c for n, c in images.items() if "13_left" not in n} | other)
    store = read(place_of).parts["train"].store
    with pytest.raises(OSError, match="not an image"):
        store.read(0)
    with pytest.raises(OSError, match="not of eight bits"):
        store.read(1)
    with pytest.raises(FileNotFoundError):
        store.read(2)
    assert store.stamp(2) is None


def test_the_user_is_told_that_images_are_prepared(tmp_path, fill, images, tables):
    fill(tmp_path, images)
    notes = list_data("vtab-retinopathy", directory=tmp_path).notes
    assert any("prepared when read, nearly as" in note for note in notes)


def test_the_joining_of_the_parts_is_told(place_of, tables):
    with pytest.raises(RequestError, match=r"cat train\.zip\.0\* > train\.zip"):
        place_of(TASKS["retinopathy"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TRAIN_LABELS, b"image,level\n1_left,5\n", "line 2 has image '1_left' and level '5'"),
        (TRAIN_LABELS, b"image,level\na,1\n1_left\n", "line 3 has image '1_left' and level ''"),
        (TRAIN_LABELS, b"name,level\na,1\n", "line 2 has image None and level '1', wanted a name"),
        (TEST_LABELS, b"image,level\n1_left,1\n", "has no rows of Usage Public: take it from http"),
        (TEST_LABELS, b"image,level,Usage\n1_left,1,Public\n", "has no rows of Usage Private"),
        (TEST_LABELS, b"\xff\xfe\x00", "can't be read"),
    ],
)
def test_another_table_is_an_error(
    tmp_path, fill, place_of, images, tables, name, content, message
):
    fill(tmp_path, images | {name: content})
    with pytest.raises(DataError, match=f"{name}.*{message}"):
        read(place_of)


def test_a_damaged_archive_is_an_error(tmp_path, fill, place_of, images, tables):
    fill(tmp_path, {n: c for n, c in images.items() if n.startswith("test")})
    fill(tmp_path, {"train.zip": b"one of the parts"})
    with pytest.raises(DataError, match=r"train\.zip can't be read as a zip"):
        read(place_of)


def eye(height=120, width=160, *, radius=50):
    """A lit disc on black."""
    y, x = np.mgrid[:height, :width]
    lit = (y - height / 2 + 0.5) ** 2 + (x - width / 2 + 0.5) ** 2 < radius**2
    return (lit[..., None] * np.array([200, 90, 40])).astype(np.uint8)


def test_the_radius_is_half_of_what_is_bright_in_the_middle_row():
    assert eye_radius(eye(radius=50)) == 50
    assert eye_radius(np.zeros((30, 50, 3), np.uint8)) == 15


def test_scaling_by_one_changes_nothing(random):
    image = random.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(scale_bilinear(image, 1.0), image)


@pytest.mark.parametrize("factor", [0.1, 0.37, 0.5, 1.3, 2.0, 6.5])
def test_scaling_weighs_the_two_nearest_pixels(random, factor):
    image = random.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    scaled = scale_bilinear(image, factor)
    assert scaled.shape == (round(40 * factor), round(30 * factor), 3)
    exact = image.astype(float)
    for axis, size in ((0, 40), (1, 30)):
        positions = ((np.arange(scaled.shape[axis]) + 0.5) / factor - 0.5).clip(0, size - 1)
        before = np.floor(positions).astype(int)
        share = np.expand_dims(positions - before, 1 - axis)[..., None]
        after = np.minimum(before + 1, size - 1)
        exact = exact.take(before, axis) * (1 - share) + exact.take(after, axis) * share
    assert np.abs(scaled - exact).max() < 1.2


def test_a_scaled_image_has_a_pixel_at_least():
    assert scale_bilinear(np.full((2, 9, 3), 7, np.uint8), 0.1).tolist() == [[[7, 7, 7]]]


def test_the_kernel_is_opencvs():
    # cv2.GaussianBlur of a column of 255 amid zeros gives them.
    kernel = gaussian_kernel(10.0)
    assert len(kernel) == 61
    assert kernel.sum() == 256
    assert kernel.tolist() == kernel[::-1].tolist()
    assert kernel[:31].tolist() == [
        0, 0, 0, 1, 0, 1, 0, 1, 1, 1, 1, 2, 2, 2, 3,
        4, 3, 5, 5, 5, 7, 6, 8, 8, 8, 9, 10, 10, 10, 10, 10,
    ]  # fmt: skip


def test_blurring_is_the_rounded_sum_of_the_kernel(random):
    image = random.integers(0, 256, (70, 65, 3), dtype=np.uint8)
    kernel = gaussian_kernel(3.0)
    reach = len(kernel) // 2
    padded = np.pad(image.astype(np.int64), ((reach, reach), (reach, reach), (0, 0)), "reflect")
    weights = kernel[:, None] * kernel
    windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape, axis=(0, 1))
    wanted = (np.einsum("hwcij,ij->hwc", windows, weights) + 2**15) >> 16
    np.testing.assert_array_equal(blur(image, sigma=3.0), wanted)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 200), (500, 3)])
def test_an_even_image_stays_even(size):
    image = np.full((*size, 3), 255, np.uint8)
    assert (blur(image, sigma=10.0) == 255).all()
    assert (subtract_local_average(image, sigma=10.0) == 128).all()


def test_differences_are_cut_off():
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    result = subtract_local_average(image, sigma=2.0)
    assert result[20, 20].tolist() == [255] * 3
    assert result[20, 21].tolist() < [128] * 3
    assert result[0, 0].tolist() == [128] * 3


def test_the_circle_is_opencvs():
    # As cv2.circle fills one of radius 6.
    assert circle_half_widths(6).tolist() == [6, 5, 5, 5, 4, 3, 0]
    assert circle_half_widths(0).tolist() == [0]


@pytest.mark.parametrize("radius", [1, 2, 3, 10, 57, 270])
def test_the_circle_is_one(radius):
    exact = np.sqrt(radius**2 - np.arange(radius + 1) ** 2)
    assert np.abs(circle_half_widths(radius) - exact).max() <= max(2, radius**0.5)
    assert np.abs(circle_half_widths(radius) - exact)[: radius // 2].max(initial=0) <= 1


def test_what_is_outside_the_circle_is_grey_and_the_box_is_cut():
    image = np.zeros((30, 41, 3), np.uint8)
    cropped = crop_to_circle(image, 10)
    assert cropped.shape == (20, 20, 3)
    assert (cropped[0, 0] == 128).all()
    assert (cropped[10] == 0).all()
    assert crop_to_circle(image, 18).shape == (30, 36, 3)
    assert (crop_to_circle(image, 18)[:, 18] == 0).all()


def test_an_eye_is_prepared():
    prepared = prepare_retina(eye())
    assert prepared.shape == (540, 540, 3)
    assert prepared.dtype == np.uint8
    assert (prepared[0, 0] == 128).all()
    assert (prepared[270, 270] == 128).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (6, 300)])
def test_odd_images_are_prepared(random, size):
    image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    prepared = prepare_retina(image)
    assert max(prepared.shape[:2]) <= 540
    assert min(prepared.shape[:2]) >= 1


def test_an_image_that_shows_next_to_nothing_is_refused():
    image = np.zeros((600, 800, 3), np.uint8)
    image[300, 400:402] = 255
    with pytest.raises(ValueError, match="600x800 pixels with an eye of only 2"):
        prepare_retina(image)


def test_preparation_gives_opencvs_values():
    # cv2 4.10 and 5.0 by the steps of TensorFlow Datasets, of the same image.
    y, x = np.mgrid[:90, :120]
    image = np.stack([(x * 7 + y * 3) % 251, (x * y) % 241, (x + 5 * y) % 239], 2).astype(np.uint8)
    prepared = prepare_retina(image).astype(np.int64)
    assert prepared.shape == (450, 540, 3)
    wanted = [0, 104, 255, 8, 255, 80, 80, 240, 255, 108, 8, 72, 120, 112, 88, 96]
    assert np.abs(prepared[100:440:85, 100:440:85, 1].ravel() - wanted).max() <= 4
    assert abs(prepared.sum() - 93_148_272) <= 4000
