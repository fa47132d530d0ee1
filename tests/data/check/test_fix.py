"""A cleaned list trains as the data would without its problems."""

from pathlib import Path

import numpy as np
import pytest

from vitral.config.run import DataSettings
from vitral.data.check.check import check
from vitral.data.check.checked import open_checked
from vitral.data.check.fix import cleaned_rows, folds_of
from vitral.data.dataset import open_dataset
from vitral.errors import RequestError
from vitral.files.rows import csv_text


def fixed(root, path, *, against=None, folds=0, **options):
    """Write the cleaned list of a folder and return its rows by path."""
    other = open_checked(against) if against else None
    rows = cleaned_rows(check(open_checked(root, **options)), path, against=other, folds=folds)
    path.write_text(csv_text(rows, columns=list(rows[0])))
    return {row["path"]: row for row in rows}


def tree(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_what_is_wrong_is_left_out_and_the_rest_is_good(split_tree, fill, tmp_path):
    root, contents = split_tree
    planted = {
        "train/a/bad.png": b"",
        "train/a/twice.png": contents["train/a/1.png"],
        "train/b/leak.png": contents["test/b/1.png"],
        "val/a/leak.png": contents["test/a/0.png"],
        "train/b/wrong.png": contents["train/a/2.png"],
    }
    fill(root, planted)
    before = tree(root)
    rows = fixed(root, tmp_path / "clean.csv")
    assert tree(root) == before
    assert set(rows) == {f"photos/{name}" for name in contents if name != "train/a/2.png"}
    assert rows["photos/test/b/1.png"] == {
        "path": "photos/test/b/1.png", "label": "b", "split": "test"
    }  # fmt: skip
    again = check(open_checked(tmp_path / "clean.csv"))
    assert again.verdict == "good: nothing to complain about"
    data = open_dataset(tmp_path / "clean.csv")
    assert {split: len(part) for split, part in data.splits.items()} == {
        "train": 11, "validation": 4, "test": 4
    }  # fmt: skip


def test_training_images_that_look_like_test_images_are_left_out(
    split_tree, fill, tmp_path, stress
):
    root, _ = split_tree
    smaller = stress["pillow/hopper.jpg"]
    fill(root, {"train/a/photo.jpg": smaller, "test/a/photo.webp": stress["pillow/hopper.webp"]})
    rows = fixed(root, tmp_path / "clean.csv")
    assert "photos/test/a/photo.webp" in rows
    assert "photos/train/a/photo.jpg" not in rows


def test_without_splits_what_looks_alike_becomes_a_group(fill, pictures, tmp_path, stress):
    names = [f"{kind}/{n}.png" for kind in "ab" for n in range(20)]
    near = {"a/p.jpg": stress["pillow/hopper.jpg"], "a/p.webp": stress["pillow/hopper.webp"]}
    root = fill(tmp_path / "photos", pictures(names) | near)
    rows = fixed(root, tmp_path / "clean.csv")
    assert len(rows) == 42
    assert rows["photos/a/p.jpg"]["group"] == rows["photos/a/p.webp"]["group"] == "a/p.jpg"
    assert "split" not in rows["photos/a/p.jpg"]
    data = open_dataset(tmp_path / "clean.csv")
    split_of = {
        part.name(i): split for split, part in data.splits.items() for i in range(len(part))
    }
    assert split_of["photos/a/p.jpg"] == split_of["photos/a/p.webp"]


def test_groups_of_the_source_and_of_looks_become_one(fill, pictures, tmp_path, stress):
    near = {"q-p.jpg": stress["pillow/hopper.jpg"], "r-p.webp": stress["pillow/hopper.webp"]}
    fill(tmp_path, pictures(["q-1.png", "r-2.png", "s-3.png"]) | near)
    names = ["q-1.png", "q-p.jpg", "r-2.png", "r-p.webp", "s-3.png"]
    lines = [f"{name},{'ab'[n % 2]}" for n, name in enumerate(names)]
    (tmp_path / "own.csv").write_text("\n".join(["path,label", *lines]))
    rows = fixed(tmp_path / "own.csv", tmp_path / "clean.csv", group_pattern=r"^\w")
    assert [row["group"] for row in rows.values()] == ["q", "q", "q", "q", "s"]


def test_what_other_data_has_is_left_out(split_tree, fill, tmp_path):
    root, contents = split_tree
    other = fill(tmp_path / "other", {"x/1.png": contents["train/a/4.png"], "x/2.png": b""})
    assert "photos/train/a/4.png" not in fixed(root, tmp_path / "clean.csv", against=other)


def test_several_labels_are_kept(fill, pictures, tmp_path):
    fill(tmp_path, pictures([f"{n}.png" for n in range(4)]))
    lines = ["0.png,a|b", "1.png,", "2.png,b", "3.png,a"]
    (tmp_path / "own.csv").write_text("\n".join(["path,labels", *lines]))
    rows = fixed(tmp_path / "own.csv", tmp_path / "clean.csv")
    assert [row["labels"] for row in rows.values()] == ["a|b", "", "b", "a"]


def test_paths_are_relative_to_the_list(split_tree, tmp_path):
    root, _ = split_tree
    (tmp_path / "lists").mkdir()
    rows = fixed(root, tmp_path / "lists" / "clean.csv")
    assert "../photos/train/a/0.png" in rows
    assert sum(map(len, open_dataset(tmp_path / "lists" / "clean.csv").splits.values())) == 20


def test_images_in_an_archive_have_no_paths(pack, pictures, tmp_path):
    names = [f"{kind}/{n}.png" for kind in "ab" for n in range(9)]
    pack(tmp_path / "photos.zip", pictures(names))
    with pytest.raises(RequestError, match=r"photos\.zip is not made of files of their own"):
        fixed(tmp_path / "photos.zip", tmp_path / "clean.csv")


def test_each_fold_has_a_like_part_of_each_class(fill, pictures, tmp_path):
    names = [f"{kind}/{n}.png" for kind in "ab" for n in range(30)]
    root = fill(tmp_path / "photos", pictures(names))
    rows = fixed(root, tmp_path / "clean.csv", folds=5)
    counts = np.zeros((2, 5), int)
    for row in rows.values():
        counts["ab".index(row["label"]), row["fold"]] += 1
    assert (counts == 6).all()


@pytest.mark.parametrize("folds", [-1, 1])
def test_one_fold_is_none(split_tree, folds):
    with pytest.raises(RequestError, match=f"folds={folds}: give 2 or more"):
        folds_of(open_checked(split_tree[0]), [0], folds=folds, groups=None)


def test_a_list_beside_another_name_is_still_found(split_tree, tmp_path):
    root, _ = split_tree
    rows = fixed(root, tmp_path / "clean.csv")
    assert all((tmp_path / Path(name)).is_file() for name in rows)


def test_what_looks_like_a_copy_that_is_left_out_is_left_out_too(
    split_tree, fill, tmp_path, stress
):
    root, _ = split_tree
    photo = stress["pillow/hopper.jpg"]
    fill(
        root,
        {"train/a/1-first.jpg": photo, "val/a/copy.jpg": photo,
         "train/a/near.webp": stress["pillow/hopper.webp"]},
    )  # fmt: skip
    rows = fixed(root, tmp_path / "clean.csv")
    assert "photos/val/a/copy.jpg" in rows
    assert not {"photos/train/a/1-first.jpg", "photos/train/a/near.webp"} & set(rows)
    assert check(open_checked(tmp_path / "clean.csv")).verdict.startswith("good")


@pytest.mark.parametrize("pattern", [None, r"/(\d)"])
def test_the_folds_of_a_list_are_those_that_training_makes(fill, pictures, tmp_path, pattern):
    names = [f"{kind}/{n}.png" for kind in "ab" for n in range(30)]
    root = fill(tmp_path / "photos", pictures(names))
    rows = fixed(root, tmp_path / "clean.csv", folds=3, group_pattern=pattern)
    for fold in range(3):
        settings = DataSettings(source="", folds=3, fold=fold, validation_share=0.0)
        test = open_dataset(tmp_path / "clean.csv", settings=settings).splits["test"]
        tested = {test.name(number) for number in range(len(test))}
        assert tested == {path for path, row in rows.items() if row["fold"] == fold}
