import pytest
from listings import skipped, splits, used

from vitral.data.sources.find import list_source

TREE = ["train/cat/1.png", "train/dog/1.png", "test/cat/2.png", "test/dog/3.png"]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.zip"])
@pytest.mark.parametrize("lead", ["", "photos/"])
def test_an_archive_may_hold_splits(tmp_path, pack, name, lead):
    names = [lead + own for own in TREE]
    listing = list_source(pack(tmp_path / name, [*names, f"{lead}notes.png", f"{lead}docs/a.txt"]))
    assert splits(listing) == {own: own.removeprefix(lead).split("/")[0] for own in names}
    assert used(listing) == {own: own.removeprefix(lead).split("/")[1] for own in names}
    assert skipped(listing) == dict.fromkeys(
        [f"{lead}notes.png", f"{lead}docs/a.txt"], "not in a split's folder"
    )


def test_files_above_the_splits_of_an_archive_are_left_out(tmp_path, pack):
    names = [f"photos/{own}" for own in TREE]
    listing = list_source(pack(tmp_path / "a.zip", ["README.txt", *names]))
    assert set(used(listing)) == set(names)
    assert skipped(listing) == {"README.txt": "not in a split's folder"}


def test_an_archive_may_hold_class_folders(tmp_path, pack):
    listing = list_source(pack(tmp_path / "a.zip", ["cat/1.png", "dog/1.png", "dog/a.txt"]))
    assert used(listing) == {"cat/1.png": "cat", "dog/1.png": "dog"}
    assert skipped(listing) == {"dog/a.txt": "not an image"}


def test_a_class_may_be_called_like_a_split(tmp_path, pack):
    listing = list_source(pack(tmp_path / "a.zip", ["test/1.png", "cat/1.png"]))
    assert used(listing) == {"test/1.png": "test", "cat/1.png": "cat"}


def test_the_list_in_an_archive_says_what_is_used(tmp_path, pack):
    text = b"path,label\npictures/1.png,cat\ngone.png,dog\n,cat\n"
    members = {"all/labels.csv": text, "all/pictures/1.png": b"1", "all/pictures/2.png": b"2"}
    listing = list_source(pack(tmp_path / "a.zip", members))
    assert used(listing) == {"all/pictures/1.png": "cat", "all/gone.png": "dog"}
    assert skipped(listing) == {
        "line 4": "no path or no label in the list",
        "all/pictures/2.png": "not in the list",
    }
    assert listing.store.read(0) == b"1"
    with pytest.raises(FileNotFoundError):
        listing.store.read(1)
    assert listing.store.stamp(1) is None


def test_a_table_that_lists_no_examples_is_a_file_like_others(tmp_path, fill, pack):
    files = {"metadata.csv": b"file_name,text\n1.png,a cat\n", "cat/1.png": b"1", "dog/1.png": b"2"}
    for source in (pack(tmp_path / "a.zip", files), fill(tmp_path / "folder", files)):
        listing = list_source(source)
        assert used(listing) == {"cat/1.png": "cat", "dog/1.png": "dog"}
        assert skipped(listing) == {"metadata.csv": "not in a class folder"}


def test_an_archive_with_labels_beside_its_images_is_a_shard(tmp_path, pack):
    members = {"0.png": b"0", "0.cls": b"cat", "1.png": b"1", "1.cls": b"dog"}
    assert used(list_source(pack(tmp_path / "a.tar", members))) == {"0.png": "cat", "1.png": "dog"}
