import json

import numpy as np
import pytest
from PIL import Image

from vitral.data import report as report_module
from vitral.data import scan as survey_module
from vitral.data import splits as file_splits
from vitral.data.dataset import open_dataset
from vitral.data.report import data_report, describe_report


@pytest.fixture
def report(tmp_path, fill, picture, encode):
    """The report of a split folder with one of everything."""
    exif = Image.Exif()
    exif[0x0112] = 6
    same = encode(picture(1))
    files = {
        "train/a/1.png": same,
        "train/a/2.png": same,
        "train/a/3.jpg": encode(picture(2, size=(40, 30)), "JPEG", exif=exif),
        "train/b/1.webp": encode(picture(3, size=(50, 60), mode="RGBA"), "WEBP"),
        "train/b/2.png": encode(picture(4, mode="L")),
        "train/b/bad.png": b"text",
        "train/b/worse.png": b"text",
        "train/b/phone.heic": b"\0\0\0 ftypheic",
        "test/a/1.png": same,
        "test/notes.txt": b"text",
    }
    return data_report(open_dataset(fill(tmp_path, files)), name="birds")


def test_the_report_counts_classes_by_split(report):
    assert report["classes"] == ["a", "b"]
    assert report["splits"] == {
        "train": {"num_images": 5, "per_class": [3, 2]},
        "test": {"num_images": 1, "per_class": [1, 0]},
    }


def test_the_report_counts_kinds_and_sizes(report):
    assert report["formats"] == {"PNG": 4, "JPEG": 1, "WEBP": 1}
    assert report["modes"] == {"RGB": 4, "L": 1, "RGBA": 1}
    assert report["sizes"] == {"smallest": [10, 12], "median": [10, 12], "largest": [50, 60]}


def test_the_report_lists_what_is_left_out(report):
    assert report["skipped"]["count"] == 4
    assert report["skipped"]["reasons"] == {
        "not an image": 2,
        "HEIC is not read yet": 1,
        "not in a class folder": 1,
    }
    assert sorted(report["skipped"]["examples"]) == [
        ["test/notes.txt", "not in a class folder"],
        ["train/b/bad.png", "not an image"],
        ["train/b/phone.heic", "HEIC is not read yet"],
        ["train/b/worse.png", "not an image"],
    ]


def test_the_report_finds_exact_copies_within_and_across_splits(report):
    assert report["duplicates"] == {
        "within": 1,
        "across": 1,
        "examples": [["train/a/1.png", "train", "test/a/1.png", "test"]],
    }


def test_the_report_notes_what_was_done_to_images_and_classes(report):
    assert report["notes"] == [
        "the test split has no images of 'b'",
        "1 image is turned as its EXIF says",
        "1 image has transparency, which is put on white",
    ]


def test_the_report_is_plain_data(report):
    assert json.loads(json.dumps(report)) == report


def test_the_report_is_told_in_a_few_lines(report):
    assert describe_report(report) == [
        "data: birds: 2 classes, 5 train, 1 test images",
        "      10 x 12 to 50 x 60 pixels; PNG 4, JPEG 1, WEBP 1; RGB 4, RGBA 1, grey 1",
        "      skipped 4 files: 2 not an image, 1 not in a class folder, 1 HEIC is not read yet",
        "      the test split has no images of 'b'",
        "      1 image is turned as its EXIF says",
        "      1 image has transparency, which is put on white",
        "      warning: 2 images of one split are copies of another split's: the score would "
        "flatter, such as test/a/1.png and train/a/1.png (test, a; train, a)",
        "      4 images have a side of less than 16 pixels, such as test/a/1.png (10 x 12)",
        "      2 classes have fewer than 5 training images, such as 'b': 2",
    ]


def test_an_ordinary_set_is_told_in_two_lines_and_how_it_was_split(tmp_path, fill):
    fill(tmp_path, [f"{c}/{n}.png" for c in "ab" for n in range(40)])
    report = data_report(open_dataset(tmp_path), name="birds")
    first, second, *notes = describe_report(report)
    assert first.startswith("data: birds: 2 classes, ")
    assert second == "      10 x 12 pixels; PNG 80; RGB 80"
    assert notes == [
        "      split by content hash: 80 % train, 10 % validation, 10 % test",
        "      80 images have a side of less than 16 pixels, such as a/0.png (10 x 12)",
    ]
    assert sum(part["num_images"] for part in report["splits"].values()) == 80


def test_copies_in_a_third_split_are_counted_once_each(tmp_path, fill, picture, encode):
    same = {f"{split}/a/1.png": encode(picture(1)) for split in ("train", "val", "test")}
    unique = {f"{split}/b/1.png": None for split in ("train", "val", "test")}
    report = data_report(open_dataset(fill(tmp_path, same | unique)), name="birds")
    assert (report["duplicates"]["within"], report["duplicates"]["across"]) == (0, 2)


def test_only_the_first_examples_are_listed(tmp_path, fill):
    files = [f"{split}/{c}/1.png" for split in ("train", "test") for c in "ab"]
    fill(tmp_path, [*files, *(f"notes-{number}.txt" for number in range(50))])
    report = data_report(open_dataset(tmp_path), name="birds")
    assert report["skipped"]["count"] == 50
    assert len(report["skipped"]["examples"]) == 20


def test_what_was_not_looked_at_is_not_claimed(tmp_path, fill, monkeypatch):
    for module in (file_splits, survey_module, report_module):
        monkeypatch.setattr(module, "MAX_FILES_READ", 3)
    fill(tmp_path, [f"{split}/{c}/1.png" for split in ("train", "test") for c in "ab"])
    report = data_report(open_dataset(tmp_path), name="birds")
    assert not {"sizes", "duplicates"} & report.keys()
    assert describe_report(report) == [
        "data: birds: 2 classes, 2 train, 2 test images",
        "      4 files, more than 3, were not looked into: `vitral data check` decodes and "
        "compares all",
        "      2 classes have fewer than 5 training images, such as 'a': 1",
    ]


@pytest.mark.parametrize(
    ("channels", "mode", "said"),
    [
        (1, "L", "grey"), (2, "LA", "grey with alpha"), (3, "RGB", "RGB"), (4, "RGBA", "RGBA"),
        (13, "13 channels", "13 channels"),
    ],
)  # fmt: skip
def test_arrays_are_reported_too(tmp_path, channels, mode, said):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 5, 4, channels), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(40) % 2)
    report = data_report(open_dataset(tmp_path / "a.npz"), name="arrays")
    assert report["formats"] == {"array": 40}
    assert report["modes"] == {mode: 40}
    assert report["sizes"]["largest"] == [5, 4]
    assert describe_report(report)[1] == f"      5 x 4 pixels; array 40; {said} 40"
