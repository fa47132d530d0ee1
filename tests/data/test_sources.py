import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from vitral.data.folders import walk_files
from vitral.data.listing import SPLIT_NAMES, class_order
from vitral.data.sources import list_source
from vitral.errors import DataError, RequestError

FOLDER = ["cat/1.png", "cat/2.png", "dog/1.png"]


def used(listing):
    """The class of every used file."""
    return dict(zip(listing.store.names, listing.labels, strict=True))


def splits(listing):
    return dict(zip(listing.store.names, listing.splits, strict=True))


def skipped(listing):
    """The reason for every skipped file."""
    return {item.name: item.reason for item in listing.skipped}


# Class folders


def test_the_folder_is_the_class(tmp_path, fill):
    listing = list_source(fill(tmp_path, FOLDER))
    assert used(listing) == {"cat/1.png": "cat", "cat/2.png": "cat", "dog/1.png": "dog"}
    assert skipped(listing) == {}
    assert set(listing.splits) == {None}
    assert not listing.is_split
    assert listing.source == str(tmp_path.resolve())


def test_folders_within_a_class_belong_to_it(tmp_path, fill):
    listing = list_source(fill(tmp_path, ["cat/a/1.png", "cat/a/b/2.png", "dog/1.png"]))
    assert used(listing) == {"cat/a/1.png": "cat", "cat/a/b/2.png": "cat", "dog/1.png": "dog"}


def test_a_folder_above_all_class_folders_is_no_class(tmp_path, fill):
    files = ["photos/cat/1.png", "photos/dog/1.png", "photos/readme.txt", "notes.txt"]
    listing = list_source(fill(tmp_path, files))
    assert used(listing) == {"photos/cat/1.png": "cat", "photos/dog/1.png": "dog"}
    assert skipped(listing) == {
        "photos/readme.txt": "not in a class folder",
        "notes.txt": "not in a class folder",
    }


@pytest.mark.parametrize("lead", ["", "photos/"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".ipynb_checkpoints/1.png", "in a hidden folder"),
        (".ipynb_checkpoints/cat/1.png", "in a hidden folder"),
        (".git/config", "in a hidden folder"),
        ("__MACOSX/cat/._1.png", "in a hidden folder"),
        ("__MACOSX/photos/cat/._1.png", "in a hidden folder"),
        (".DS_Store", "a hidden file"),
        ("1.png", "not in a class folder"),
        ("labels.txt", "not in a class folder"),
    ],
)
def test_what_lies_beside_the_classes_is_listed(tmp_path, fill, lead, name, reason):
    files = [lead + file for file in FOLDER]
    listing = list_source(fill(tmp_path, [*files, name]))
    assert list(listing.store.names) == files
    assert listing.labels == ["cat", "cat", "dog"]
    assert skipped(listing) == {name: reason}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cat/.cache/1.png", "in a hidden folder"),
        ("cat/day/.cache/1.png", "in a hidden folder"),
        ("cat/._1.png", "a hidden file"),
        ("cat/Thumbs.db", "not an image"),
        ("cat/noextension", "not an image"),
        ("cat/readme.txt", "not an image"),
    ],
)
def test_what_is_no_image_within_a_class_is_listed(tmp_path, fill, name, reason):
    listing = list_source(fill(tmp_path, [*FOLDER, name]))
    assert list(listing.store.names) == FOLDER
    assert skipped(listing) == {name: reason}


def test_files_are_known_by_content_where_their_name_says_nothing(tmp_path, fill, picture, encode):
    contents = {
        "cat/1": encode(picture(), "PNG"),
        "cat/2.dat": encode(picture(), "JPEG"),
        "cat/3.tmp": encode(picture(), "WEBP"),
        "cat/4.0": encode(picture(), "BMP"),
        "cat/5.anim": b"\0\0\0 ftypheic",
        "cat/6.scan": encode(picture(), "TIFF"),
    }
    listing = list_source(fill(tmp_path, contents))
    assert list(listing.store.names) == [name for name in contents if name != "cat/5.anim"]
    assert skipped(listing) == {"cat/5.anim": "HEIC is not read yet"}


@pytest.mark.parametrize("suffix", ["jpg", "JPG", "jpeg", "JPEG", "jfif", "png", "webp", "bmp"])
def test_names_of_images_are_taken_unseen(tmp_path, fill, suffix):
    name = f"cat/1.{suffix}"
    assert list(list_source(fill(tmp_path, {name: b"text"})).store.names) == [name]


def test_hidden_folders_do_not_make_their_class_a_folder_above_classes(tmp_path, fill):
    listing = list_source(fill(tmp_path, ["cat/.thumbs/1.png", "cat/day/1.png", "cat/2.png"]))
    assert used(listing) == {"cat/2.png": "cat", "cat/day/1.png": "cat"}


def test_an_empty_class_folder_is_no_class(tmp_path, fill):
    (fill(tmp_path, FOLDER) / "owl").mkdir()
    assert set(list_source(tmp_path).labels) == {"cat", "dog"}


def test_a_link_back_is_listed_and_not_followed(tmp_path, fill):
    (fill(tmp_path, FOLDER) / "cat/again").symlink_to(tmp_path)
    listing = list_source(tmp_path)
    assert list(listing.store.names) == FOLDER
    assert skipped(listing) == {"cat/again": "a link to a folder that is read already"}


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path, fill):
    fill(tmp_path / "elsewhere", ["1.png"])
    (fill(tmp_path / "data", FOLDER) / "owl").symlink_to(tmp_path / "elsewhere")
    assert used(list_source(tmp_path / "data"))["owl/1.png"] == "owl"


def test_a_folder_that_can_not_be_opened_is_listed(tmp_path, fill, monkeypatch):
    scan, locked = os.scandir, str(fill(tmp_path, FOLDER) / "dog")

    def refuse(place):
        if str(place) == locked:
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = list_source(tmp_path)
    assert list(listing.store.names) == ["cat/1.png", "cat/2.png"]
    assert skipped(listing) == {"dog": "can't be opened: Permission denied"}


def test_folders_and_files_come_in_fixed_order(tmp_path, fill):
    fill(tmp_path, ["b/2.png", "b/10.png", "a/1.png", "b.txt"])
    assert walk_files(tmp_path) == (["b.txt", "a/1.png", "b/10.png", "b/2.png"], [])


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["10", "9", "100", "1"], ["1", "9", "10", "100"]),
        (["010", "9", "1"], ["1", "9", "010"]),
        (["dog", "cat", "7", "11"], ["7", "11", "cat", "dog"]),
        (["n10", "n9"], ["n10", "n9"]),
        (["b", "A", "a"], ["A", "a", "b"]),
    ],
)
def test_class_names_that_are_numbers_sort_as_numbers(names, ordered):
    assert sorted(names, key=class_order) == ordered


@given(st.lists(st.text(max_size=4)))
@example(["\N{SUPERSCRIPT TWO}", "3", "\N{ARABIC-INDIC DIGIT TWO}"])
def test_any_class_names_have_an_order(names):
    assert Counter(sorted(names, key=class_order)) == Counter(names)


# Every file below the folder is used or listed

NAMES = st.sampled_from(
    [
        "a",
        "b",
        "7",
        ".x",
        "__MACOSX",
        "train",
        "test",
        "1.png",
        "2.JPG",
        "n.txt",
        ".y",
        "z.gif",
        "q",
    ]
)
TREES = st.lists(st.lists(NAMES, min_size=1, max_size=4).map("/".join), max_size=14)


def write_tree(root, paths, content):
    """Write what fits: a path below a file, or of a folder that is there, is left out."""
    for path in map(root.joinpath, paths):
        above = [parent for parent in path.parents if parent.is_file()]
        if not above and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


@settings(deadline=None, max_examples=150)
@given(paths=TREES, content=st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\0\0\0 ftypheic", b"text"]))
def test_every_file_below_a_folder_is_used_or_listed(paths, content):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_tree(root, paths, content)
        files = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]
        try:
            listing = list_source(root)
        except DataError as error:  # what can't be labelled at all is told, not left out
            assert "images straight in" in str(error)
            return
        accounted = [*listing.store.names, *(item.name for item in listing.skipped)]
    assert sorted(accounted) == sorted(files)
    assert len(listing.labels) == len(listing.splits) == len(listing.store.names)
    assert not any(part.startswith(".") for name in listing.store.names for part in name.split("/"))
    assert all(item.reason for item in listing.skipped)


@settings(deadline=None, max_examples=100)
@given(paths=TREES.filter(bool), kind=st.sampled_from(["tar", "tar.gz", "zip"]))
def test_every_file_of_an_archive_is_used_or_listed(pack, paths, kind):
    files = dict.fromkeys(paths, b"\x89PNG\r\n\x1a\n")
    with tempfile.TemporaryDirectory() as folder:
        pack(Path(folder) / f"train.{kind}", files)
        listing = list_source(folder)
        accounted = [*listing.store.names, *(item.name for item in listing.skipped)]
    assert sorted(accounted) == sorted(f"train.{kind}/{name}" for name in files)


# Split folders and archives


@pytest.mark.parametrize("name", SPLIT_NAMES)
@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
@pytest.mark.parametrize("ending", ["", ".tar", ".tar.gz", ".tgz", ".zip"])
def test_a_split_is_known_by_its_name(tmp_path, fill, pack, name, spelling, ending):
    place = spelling(name) + ending
    write = pack if ending else fill
    write(tmp_path / place, FOLDER)
    listing = list_source(tmp_path)
    assert splits(listing) == {f"{place}/{file}": SPLIT_NAMES[name] for file in FOLDER}
    assert listing.labels == ["cat", "cat", "dog"]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tgz", ".zip"])
def test_splits_may_be_folders_and_archives_beside_each_other(tmp_path, fill, pack, ending):
    fill(tmp_path / "train", [*FOLDER, ".hidden/1.png", "stray.png"])
    pack(tmp_path / f"test{ending}", ["owl/1.png", "owl/readme.txt"])
    listing = list_source(tmp_path)
    assert listing.is_split
    assert used(listing) == {
        f"test{ending}/owl/1.png": "owl",
        "train/cat/1.png": "cat",
        "train/cat/2.png": "cat",
        "train/dog/1.png": "dog",
    }
    assert skipped(listing) == {
        f"test{ending}/owl/readme.txt": "not an image",
        "train/.hidden/1.png": "in a hidden folder",
        "train/stray.png": "not in a class folder",
    }
    number = listing.store.names.index(f"test{ending}/owl/1.png")
    assert listing.store.read(number).startswith(b"\x89PNG")


@pytest.mark.parametrize("archive", ["train.tar", "train.zip"])
@pytest.mark.parametrize("lead", ["", "train/", "some name/"])
@pytest.mark.parametrize("beside", [{}, {"__MACOSX/train/cat/._1.png": b"", "._train": b""}])
def test_an_archive_may_have_one_folder_above_the_classes(tmp_path, pack, archive, lead, beside):
    contents = {lead + name: b"\x89PNG" for name in FOLDER} | beside
    listing = list_source(pack(tmp_path / archive, contents).parent)
    assert listing.labels == ["cat", "cat", "dog"]
    assert skipped(listing).keys() == {f"{archive}/{name}" for name in beside}
    assert set(skipped(listing).values()) <= {"in a hidden folder", "a hidden file"}


def test_files_beside_the_splits_are_listed(tmp_path, fill):
    fill(tmp_path, [f"train/{name}" for name in FOLDER] + ["test/cat/1.png"])
    fill(tmp_path, ["classes.txt", "more/cat/1.png", ".DS_Store"])
    assert skipped(list_source(tmp_path)) == {
        "classes.txt": "not in a split's folder",
        "more/cat/1.png": "not in a split's folder",
        ".DS_Store": "not in a split's folder",
    }


@pytest.mark.parametrize(
    ("first", "second"), [("train", "train.tar"), ("val", "validation"), ("test.tgz", "test.zip")]
)
def test_two_places_for_one_split_are_an_error(tmp_path, fill, pack, first, second):
    for place in (first, second):
        write = pack if "." in place else fill
        write(tmp_path / place, FOLDER)
    with pytest.raises(DataError, match=rf"two places for the \w+ split, {first} and {second}"):
        list_source(tmp_path)


def test_a_class_may_be_called_like_a_split(tmp_path, fill):
    listing = list_source(fill(tmp_path, ["train/1.png", "plane/1.png"]))
    assert used(listing) == {"plane/1.png": "plane", "train/1.png": "train"}


def test_one_split_alone_is_no_split(tmp_path, fill):
    listing = list_source(fill(tmp_path / "test", FOLDER).parent)
    assert listing.splits == ["test"] * 3
    assert not listing.is_split


def test_a_damaged_archive_is_an_error_that_names_it(tmp_path, fill):
    fill(tmp_path, {"train.zip": b"PK\3\4 no more", "test/cat/1.png": b""})
    with pytest.raises(DataError, match=r"train\.zip can't be read as a zip"):
        list_source(tmp_path)


# Lists


def write_csv(root, text, *, encoding="utf-8"):
    path = root / "list.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_list_states_paths_and_labels(tmp_path, fill, encoding, newline):
    fill(tmp_path, FOLDER)
    absolute = tmp_path / "dog/1.png"
    lines = ["path,label,remark", "cat/1.png,größe,x", f'{absolute},"a, b",', "cat/2.png, 7 ,"]
    listing = list_source(write_csv(tmp_path, newline.join(lines), encoding=encoding))
    assert used(listing) == {"cat/1.png": "größe", str(absolute): "a, b", "cat/2.png": "7"}
    assert listing.store.read(1) == absolute.read_bytes()
    assert set(listing.splits) == {None}


@pytest.mark.parametrize("name", SPLIT_NAMES)
def test_a_list_may_state_splits(tmp_path, name):
    text = f"path,label,split\na.png,cat,{name}\nb.png,dog,{name.upper()}\n"
    assert list_source(write_csv(tmp_path, text)).splits == [SPLIT_NAMES[name]] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'path': its first line must name path,label"),
        ("path;label\na.png;cat\n", "has no column 'path'"),
        ("file,label\na.png,cat\n", "has no column 'path'"),
        ("path,class\na.png,cat\n", "has no column 'label'"),
        ("a.png,cat\n", "has no column 'path'"),
        (
            "path,label,split\na.png,cat,train\nb.png,dog,holdout\n",
            "line 3: split 'holdout' is not",
        ),
        ("path,label,split\na.png,cat,train\nb.png,dog,\n", "some rows have a split and some"),
    ],
)
def test_a_bad_list_is_an_error_that_says_what_is_wrong(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        list_source(write_csv(tmp_path, text))


def test_a_list_in_another_encoding_is_an_error(tmp_path):
    text = "path,label\nü.png,größe\n"
    with pytest.raises(DataError, match=r"can't be read as CSV in UTF-8"):
        list_source(write_csv(tmp_path, text, encoding="latin-1"))
    with pytest.raises(DataError, match=r"can't be read as CSV in UTF-8"):
        list_source(write_csv(tmp_path, text, encoding="utf-16"))


def test_rows_without_path_or_label_are_listed(tmp_path):
    listing = list_source(write_csv(tmp_path, "path,label\na.png,cat\nb.png,\n,dog\n\nc.png\n"))
    assert used(listing) == {"a.png": "cat"}
    reason = "no path or no label in the list"
    assert skipped(listing) == {"b.png": reason, "line 4": reason, "c.png": reason}


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


# Objects and requests


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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is nothing at .*nowhere: give a folder of class folders"),
        ("notes.txt", r"notes\.txt is of no form that is read: give a folder of class folders"),
        ("train.zip", r"train\.zip is of no form that is read"),
    ],
)
def test_a_path_of_no_known_form_is_a_bad_request(tmp_path, fill, name, message):
    fill(tmp_path, ["notes.txt", "train.zip"])
    with pytest.raises(RequestError, match=message):
        list_source(tmp_path / name)


def test_split_folders_without_class_folders_are_told(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / split / "1.png")
    with pytest.raises(DataError, match="has images straight in test/, where folders of classes"):
        list_source(tmp_path)


def test_arrays_with_channels_first_are_told(tmp_path):
    images, labels = np.zeros((4, 3, 8, 8), np.uint8), np.arange(4)
    np.savez(tmp_path / "first.npz", images=images, labels=labels)
    with pytest.raises(DataError, match=r"look like \(N, C, H, W\), wanted \(N, H, W, C\)"):
        list_source(tmp_path / "first.npz")
