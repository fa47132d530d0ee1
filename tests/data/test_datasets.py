from pathlib import Path

import numpy as np
import pytest

from vitral.data.datasets import BUILTIN, DEFAULT_NAME, data_name, find_source
from vitral.data.images import open_images
from vitral.data.report import data_report
from vitral.errors import RequestError

PATH = BUILTIN[DEFAULT_NAME]


@pytest.fixture(scope="module")
def builtin():
    return open_images(DEFAULT_NAME)


def test_the_built_in_set_is_small_and_carries_its_licence():
    assert PATH.stat().st_size <= 6 * 10**6
    licence = (PATH.parent / "LICENSE.fashion_mnist").read_text()
    assert "Permission is hereby granted, free of charge" in licence
    assert "Zalando" in licence


def test_the_built_in_set_is_balanced(builtin):
    report = data_report(builtin, name=DEFAULT_NAME)
    assert report["splits"] == {
        "train": {"num_images": 10_000, "per_class": [1000] * 10},
        "test": {"num_images": 2_000, "per_class": [200] * 10},
    }
    assert report["sizes"]["smallest"] == report["sizes"]["largest"] == [28, 28]
    assert report["skipped"]["count"] == 0
    assert builtin.channels == 1
    assert builtin.has_own_splits


def test_the_built_in_set_has_no_image_in_both_splits(builtin):
    duplicates = data_report(builtin, name=DEFAULT_NAME)["duplicates"]
    assert duplicates == {"within": 0, "across": 0, "examples": []}


def test_the_built_in_set_has_the_names_of_its_publisher(builtin):
    assert builtin.classes == (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip


def test_the_built_in_images_fill_the_range(builtin):
    with np.load(PATH) as arrays:
        assert (arrays["images"].min(), arrays["images"].max()) == (0, 255)
        # The publisher's 60,000 training images have the mean 0.2860.
        assert arrays["images"].mean() / 255 == pytest.approx(0.286, abs=0.005)


@pytest.mark.parametrize("name", ["fashion-mnist", "Fashion-MNIST", "fashion_mnist"])
def test_a_built_in_set_is_found_in_any_spelling(name):
    assert find_source(name) == PATH
    assert data_name(name) == "fashion-mnist"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fashion-mnits", "data set 'fashion-mnits': did you mean 'fashion-mnist'"),
        ("zebras", "there is no folder, file or data set 'zebras': use one of fashion-mnist"),
    ],
)
def test_an_unknown_name_suggests_a_known_one(name, message):
    with pytest.raises(RequestError, match=message):
        find_source(name)


@pytest.mark.parametrize("data", ["./zebras", "a/b", "list.csv", Path("a/b"), [1], None])
def test_paths_and_objects_are_left_as_they_are(data):
    assert find_source(data) is data


def test_a_folder_that_is_there_needs_no_sign_of_a_path(tmp_path, monkeypatch):
    (tmp_path / "zebras").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_source("zebras") == "zebras"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("photos/birds/", "birds"),
        (Path("photos/birds.v2.csv"), "birds"),
        ("arrays.npz", "arrays"),
        (".hidden", "data"),
        ([1, 2], "list"),
    ],
)
def test_a_data_set_has_a_short_name(data, name):
    assert data_name(data) == name


def test_a_pattern_is_named_after_its_folder(tmp_path):
    assert data_name(tmp_path / "birds" / "train-{000..017}.tar") == "birds"
    assert data_name(str(tmp_path / "birds" / "*.tar")) == "birds"
