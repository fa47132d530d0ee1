import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.listings import skipped, splits, used

from vitral.data.sources.find import list_source
from vitral.data.sources.folders import walk_files
from vitral.data.sources.listing import SPLIT_NAMES
from vitral.errors import DataError

FOLDER = ["cat/1.png", "cat/2.png", "dog/1.png"]


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

    def refuse(path):
        if str(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = list_source(tmp_path)
    assert list(listing.store.names) == ["cat/1.png", "cat/2.png"]
    assert skipped(listing) == {"dog": "can't be opened: Permission denied"}


def test_folders_and_files_come_in_fixed_order(tmp_path, fill):
    fill(tmp_path, ["b/2.png", "b/10.png", "a/1.png", "b.txt"])
    assert walk_files(tmp_path) == (["b.txt", "a/1.png", "b/10.png", "b/2.png"], [])


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
    split_name = spelling(name) + ending
    write = pack if ending else fill
    write(tmp_path / split_name, FOLDER)
    listing = list_source(tmp_path)
    assert splits(listing) == {f"{split_name}/{file}": SPLIT_NAMES[name] for file in FOLDER}
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
    file_id = listing.store.names.index(f"test{ending}/owl/1.png")
    assert listing.store.read(file_id).startswith(b"\x89PNG")


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
    for split_name in (first, second):
        write = pack if "." in split_name else fill
        write(tmp_path / split_name, FOLDER)
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


def test_split_folders_without_class_folders_are_told(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / split / "1.png")
    with pytest.raises(DataError, match="has images straight in test/, where folders of classes"):
        list_source(tmp_path)
