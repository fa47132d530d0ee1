from pathlib import Path

import numpy as np
import pytest

from vitral.data.dataset import open_dataset
from vitral.data.datasets.names import (
    BUILTIN,
    DEFAULT_NAME,
    data_name,
    list_data,
    name_of,
)
from vitral.data.datasets.table import DATASETS, LABEL_SETS, TASKS
from vitral.data.report import data_report
from vitral.errors import RequestError

PATH = BUILTIN[DEFAULT_NAME]


@pytest.fixture(scope="module")
def builtin():
    return open_dataset(DEFAULT_NAME)


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
    assert name_of(name) == DEFAULT_NAME
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
        name_of(name)


@pytest.mark.parametrize("data", ["./zebras", "a/b", "list.csv", Path("a/b"), [1], None])
def test_paths_and_objects_are_left_as_they_are(data):
    assert name_of(data) is None


def test_a_folder_that_is_there_needs_no_sign_of_a_path(tmp_path, monkeypatch):
    (tmp_path / "zebras").mkdir()
    monkeypatch.chdir(tmp_path)
    assert name_of("zebras") is None


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


# Published sets


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("CIFAR10", "cifar10"), ("cifar-10", "cifar10"), ("ImageNet", "imagenet"),
        ("imagenet_21k", "imagenet21k"), ("Oxford", None), ("vtab_dtd", "vtab-dtd"),
        ("vtab-dtd-1000", "vtab-dtd-1000"), ("JFT-300M", "jft300m"),
    ],
)  # fmt: skip
def test_published_sets_are_found_in_any_spelling(spelling, name):
    if name is None:
        with pytest.raises(RequestError, match="there is no folder, file or data set"):
            name_of(spelling)
    else:
        assert name_of(spelling) == name
        assert data_name(spelling) == name


@pytest.mark.parametrize("name", [*DATASETS, *(f"vtab-{task}" for task in TASKS), *LABEL_SETS])
def test_missing_files_are_named_with_where_they_come_from_and_go_to(name, tmp_path):
    with pytest.raises(RequestError) as error:
        list_data(name, directory=tmp_path)
    message = str(error.value)
    short = name.removeprefix("vtab-")
    files = (
        TASKS[short].files
        if name.startswith("vtab-")
        else (DATASETS[name].files if name in DATASETS else LABEL_SETS[name].files)
    )
    assert all(f"{file.name} from {file.source}" in message for file in files if not file.optional)
    assert f"into {tmp_path}" in message
    assert "--data-dir" in message


def test_the_folder_of_files_can_be_an_environment_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAL_DATA_DIR", str(tmp_path / "there"))
    with pytest.raises(RequestError, match="into .*there/cifar10, or name another"):
        list_data("cifar10")
    monkeypatch.delenv("VITRAL_DATA_DIR")
    with pytest.raises(RequestError, match="into data/cifar10, or name another"):
        list_data("cifar10")


@pytest.mark.parametrize("data", ["fashion-mnist", "./photos"])
def test_a_folder_of_files_for_what_is_no_published_set_is_an_error(data, tmp_path):
    with pytest.raises(RequestError, match=f"--data-dir .* has no effect: {data} is no name"):
        list_data(data, directory=tmp_path)


def test_jft_is_a_list_of_its_owners(tmp_path, fill):
    with pytest.raises(RequestError, match="jft300m is not public: if you have it, put a list"):
        list_data("jft300m", directory=tmp_path)
    fill(tmp_path / "jft300m", [f"{n}.png" for n in range(3)])
    rows = ["path,labels", "0.png,a|b", "1.png,b", "2.png,"]
    (tmp_path / "jft300m" / "metadata.csv").write_text("\n".join(rows))
    (tmp_path / "jft300m" / "classes.txt").write_text("b\na\nc\n")
    listing = list_data("jft300m", directory=tmp_path)
    assert listing.labels == [("a", "b"), ("b",), ()]
    assert listing.classes == ("b", "a", "c")
    assert listing.is_multi_label
