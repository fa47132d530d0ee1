import json

import pytest

from vitral.data.check.check import check
from vitral.data.check.checked import checked_of, open_checked
from vitral.data.check.problems import ERROR, KINDS, NOTE, WARNING
from vitral.data.images import open_images
from vitral.errors import DataError


def test_good_data_is_called_good(split_tree):
    found = check(open_checked(split_tree[0]))
    assert found.is_good
    assert found.verdict == "good: nothing to complain about"
    record = found.record(name="photos")
    assert json.loads(json.dumps(record)) == record
    assert (record["num_files"], record["num_images"]) == (20, 20)
    assert list(record["splits"].items()) == [("train", 12), ("validation", 4), ("test", 4)]


def test_warnings_are_usable(split_tree, fill):
    root, contents = split_tree
    fill(root, {"train/a/again.png": contents["train/a/0.png"]})
    found = check(open_checked(root))
    assert found.is_good
    assert found.verdict == "usable: one kind of problem should be looked at"
    (problem,) = found.problems
    assert problem.sentence == "1 image is a copy within its split: they count twice"


def test_errors_are_bad(split_tree, fill):
    root, contents = split_tree
    again = {f"test/a/{n}-again.png": contents[f"train/a/{n}.png"] for n in range(2)}
    fill(root, {"train/a/bad.png": b""} | again)
    found = check(open_checked(root))
    assert not found.is_good
    assert found.verdict == "bad: 2 kinds of problems would make training or score wrong"
    assert found.problems[1].sentence.startswith("2 images of one split are copies of another")


def test_a_check_of_open_data_finds_the_same(split_tree, fill):
    root, contents = split_tree
    fill(root, {"test/a/again.png": contents["train/a/0.png"], "train/a/bad.png": b""})
    quick, full = (
        check(own).problems for own in (checked_of(open_images(root)), open_checked(root))
    )
    assert quick == full


def test_a_check_reads_all_files_however_many(split_tree, monkeypatch):
    monkeypatch.setattr("vitral.data.survey.MAX_FILES_READ", 3)
    assert all(finding.digest for finding in open_checked(split_tree[0]).findings)


def test_nothing_is_no_data(tmp_path, fill):
    fill(tmp_path / "photos", {"a/notes.txt": b"mine"})
    with pytest.raises(DataError, match="has no images"):
        open_checked(tmp_path / "photos")


def test_every_kind_has_a_weight_and_words():
    assert {kind.weight for kind in KINDS.values()} == {ERROR, WARNING, NOTE}
    assert all(kind.one for kind in KINDS.values())
