import io

import numpy as np
import pytest
from PIL import Image

from vitral.data.datasets.names import list_data
from vitral.data.datasets.publishers.btgraham import prepare_retina
from vitral.data.datasets.publishers.retinopathy import (
    TEST_LABELS,
    TRAIN_LABELS,
    encode_prepared,
    read_retinopathy,
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
        for own in ("train", "test"):
            pack(tmp_path / f"{own}.zip", {n: c for n, c in images.items() if n.startswith(own)})
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
