import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitral.config.run import DataSettings
from vitral.data import scan as survey_module
from vitral.data import splits as file_splits
from vitral.data.dataset import open_dataset
from vitral.data.splits import hash_shares
from vitral.errors import DataError, RequestError


def names_by_split(data):
    """The path and class of every used example, by split."""
    return {
        split: {part.name(i): data.classes[part.labels[i]] for i in range(len(part))}
        for split, part in data.splits.items()
    }


def split_tree(**classes):
    """Files of a split folder, two a class."""
    return [
        f"{split}/{name}/{number}.png"
        for split, names in classes.items()
        for name in names
        for number in "12"
    ]


def write_npz(path, count, *, channels=3, labels=None, **arrays):
    """Images that differ, with labels 0, 1, 2, 0, ..."""
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (count, 5, 4, channels), dtype=np.uint8)
    labels = np.arange(count) % 3 if labels is None else labels
    np.savez(path, images=images, labels=labels, **arrays)
    return path


# Classes


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (["10", "9", "1", "100"], ("1", "9", "10", "100")),
        (["dog", "cat", "owl"], ("cat", "dog", "owl")),
        (["b", "2", "10"], ("2", "10", "b")),
    ],
)
def test_classes_are_in_order_of_number_and_name(tmp_path, fill, folders, classes):
    data = open_dataset(fill(tmp_path, split_tree(train=folders, test=folders)))
    assert data.classes == classes
    assert all(
        name.split("/")[1] == label
        for part in names_by_split(data).values()
        for name, label in part.items()
    )


def test_splits_share_classes_by_name(tmp_path, fill):
    data = open_dataset(fill(tmp_path, split_tree(train=["a", "b", "c"], val=["c"], test=["b"])))
    assert data.splits["validation"].labels.tolist() == [2, 2]
    assert data.splits["test"].labels.tolist() == [1, 1]
    assert data.notes == [
        "the validation split has no images of 'a', 'b'",
        "the test split has no images of 'a', 'c'",
    ]


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_training_lacks_is_an_error_that_names_it(tmp_path, fill, split):
    fill(tmp_path, split_tree(train=["a", "b"], **{split: ["a", "owl"]}))
    with pytest.raises(DataError, match=r"the \w+ split has class 'owl', which the training split"):
        open_dataset(tmp_path)


def test_a_long_list_of_missing_classes_is_cut(tmp_path, fill):
    data = open_dataset(fill(tmp_path, split_tree(train="abcdefghi", test="a")))
    assert data.notes == ["the test split has no images of 'b', 'c', 'd', 'e', 'f' and 3 more"]


@pytest.mark.parametrize("files", [["cat/1.png", "cat/2.png"], split_tree(train="a", test="a")])
def test_one_class_is_an_error(tmp_path, fill, files):
    with pytest.raises(DataError, match=r"one class only, '\w+': a classifier needs two"):
        open_dataset(fill(tmp_path, files))


def test_a_class_without_usable_images_is_left_out_and_noted(tmp_path, fill):
    files = dict.fromkeys(["a/1.png", "a/2.png", "c/1.png", "c/2.png"]) | {
        "b/1.png": b"\0\0\0 ftypheic"
    }
    data = open_dataset(fill(tmp_path, files))
    assert data.classes == ("a", "c")
    assert "no usable images of 'b': left out of the classes" in data.notes
    assert set().union(*(part.labels.tolist() for part in data.splits.values())) == {0, 1}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no images that can be used .it is empty."),
        ({"notes.txt": b"text"}, "1 not in a class folder"),
        (
            {"a/1.png": b"text", "a/2.png": b"text", "a/3.gif": b"\0\0\0 ftypheic"},
            "2 not an image; 1 HEIC",
        ),
    ],
)
def test_no_images_is_an_error_that_counts_the_reasons(tmp_path, fill, files, message):
    with pytest.raises(DataError, match=message):
        open_dataset(fill(tmp_path, files))


def test_the_order_of_classes_that_arrays_state_is_kept(tmp_path):
    classes = ["owl", "cat", "dog", "bee"]
    data = open_dataset(write_npz(tmp_path / "a.npz", 60, classes=classes))
    assert data.classes == tuple(classes)
    assert "no training images of 'bee'" in data.notes
    assert set(data.splits["train"].labels.tolist()) == {0, 1, 2}


# A model's classes


def test_labels_are_mapped_to_the_classes_of_a_model(tmp_path, fill):
    data = open_dataset(fill(tmp_path, ["cat/1.png", "dog/1.png"]), classes=("owl", "dog", "cat"))
    assert data.classes == ("owl", "dog", "cat")
    everything = data.everything()
    found = {everything.name(i): everything.labels[i] for i in range(len(everything))}
    assert found == {"cat/1.png": 2, "dog/1.png": 1}


def test_a_class_that_the_model_does_not_know_is_an_error_that_names_it(tmp_path, fill):
    fill(tmp_path, ["cat/1.png", "owl/1.png"])
    with pytest.raises(DataError, match="has class 'owl', which the model does not know"):
        open_dataset(tmp_path, classes=("cat", "dog"))


def test_a_single_class_can_be_scored(tmp_path, fill):
    data = open_dataset(fill(tmp_path, split_tree(test=["cat"])), classes=("cat", "dog"))
    assert len(data.everything()) == 2


def test_classes_that_the_list_of_arrays_lacks_are_an_error(tmp_path):
    path = write_npz(tmp_path / "a.npz", 3, labels=["a", "b", "x"], classes=["a", "b"])
    with pytest.raises(DataError, match="has class 'x', which the class list of .* does not know"):
        open_dataset(path)


# Splits by content


@settings(deadline=None, max_examples=25)
@given(first=st.integers(8, 40), added=st.integers(0, 30))
def test_without_splits_each_image_goes_by_its_hash_and_adding_images_moves_none(first, added):
    with tempfile.TemporaryDirectory() as folder:
        path = write_npz(Path(folder) / "a.npz", 200)
        with np.load(path) as arrays:
            images = arrays["images"]
        shares = hash_shares([hashlib.sha256(i.tobytes()).hexdigest()[:32] for i in images])
        low, high = np.flatnonzero(shares < 0.8), np.flatnonzero(shares >= 0.9)
        complete = np.array([low[0], low[1], high[0], high[1]])  # both classes in both splits
        rest = np.setdiff1d(np.arange(200), complete)
        before, after = (
            open_dataset([(images[n], n in complete[::2]) for n in [*complete, *rest[:count]]])
            for count in (first, first + added)
        )
    assert not before.has_own_splits
    for split, part in before.splits.items():
        assert set(part.file_ids.tolist()) <= set(after.splits[split].file_ids.tolist())


def test_copies_go_to_the_same_split(tmp_path, fill):
    names = [f"{label}/{number}.png" for label in "ab" for number in range(30)]
    fill(tmp_path, names)
    for name in names:
        (tmp_path / name).with_suffix(".copy.png").write_bytes((tmp_path / name).read_bytes())
    splits = names_by_split(open_dataset(tmp_path))
    assert set(splits) == {"train", "validation", "test"}
    for part in splits.values():
        originals = {name for name in part if "copy" not in name}
        assert {name.replace(".copy", "") for name in part} == originals


def test_every_class_of_a_small_folder_is_trained_on_and_tested(tmp_path, fill):
    data = open_dataset(fill(tmp_path, [f"{c}/{n}.png" for c in "abcdefgh" for n in range(2)]))
    assert set(names_by_split(data)["train"].values()) == set("abcdefgh")
    assert set(names_by_split(data)["test"].values()) == set("abcdefgh")


def test_too_many_files_without_splits_are_an_error_that_says_what_to_do(
    tmp_path, fill, monkeypatch
):
    for module in (file_splits, survey_module):
        monkeypatch.setattr(module, "MAX_FILES_READ", 3)
    fill(tmp_path / "flat", ["a/1.png", "a/2.png", "b/1.png", "b/2.png"])
    with pytest.raises(DataError, match=r"4 files and no splits: above 3 .* put them into train/"):
        open_dataset(tmp_path / "flat")
    data = open_dataset(fill(tmp_path / "split", split_tree(train="ab", test="ab")))
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 4, "test": 4}


# Validation images held out of training


def held_out_folder(root, fill):
    files = [f"{split}/{c}/{n}.png" for split in ("train", "test") for c in "ab" for n in range(40)]
    return fill(root, files)


def test_validation_images_are_held_out_of_training_by_hash(tmp_path, fill):
    root = held_out_folder(tmp_path, fill)
    whole = names_by_split(open_dataset(root))
    data = open_dataset(root, settings=DataSettings(source="", validation_share=0.2))
    parts = names_by_split(data)
    assert parts["train"] | parts["validation"] == whole["train"]
    assert parts["test"] == whole["test"]
    assert 0 < len(parts["validation"]) < len(parts["train"])
    digests = [data.file_infos[n].digest for n in data.splits["validation"].file_ids]
    assert (hash_shares(digests) < 0.2).all()
    count = len(parts["validation"])
    assert f"{count} training images were held out for validation by content hash" in data.notes


def test_own_validation_images_are_kept(tmp_path, fill):
    fill(tmp_path, split_tree(train="ab", val="ab", test="ab"))
    data = open_dataset(tmp_path, settings=DataSettings(source="", validation_share=0.5))
    assert {split: len(part) for split, part in data.splits.items()} == {
        "train": 4, "validation": 4, "test": 4,
    }  # fmt: skip


def test_a_missing_first_file_does_not_prevent_the_hold_out(tmp_path, fill):
    root = held_out_folder(tmp_path, fill)
    rows = [f"train/{c}/{n}.png,{c},train" for c in "ab" for n in ["none", *range(40)]]
    lines = ["path,label,split", *rows, "test/a/1.png,a,test", "test/b/1.png,b,test"]
    (root / "list.csv").write_text("\n".join(lines))
    data = open_dataset(root / "list.csv", settings=DataSettings(source="", validation_share=0.2))
    assert len(data.splits["validation"]) > 0
    assert [item.name for _, item in data.unreadable] == ["train/a/none.png", "train/b/none.png"]


# What is left out


def test_unreadable_images_keep_their_split_and_are_in_none(tmp_path, fill):
    files = dict.fromkeys(split_tree(train="ab", test="ab"))
    files |= {"train/a/bad.png": b"\x89PNG\r\n\x1a\n", "test/b/bad.jpg": b"text"}
    data = open_dataset(fill(tmp_path, files))
    assert [item.name for item in data.problems("train")] == ["train/a/bad.png"]
    assert [(item.name, item.reason) for item in data.problems("test")] == [
        ("test/b/bad.jpg", "not an image")
    ]
    assert data.problems("validation") == []
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 4, "test": 4}


def test_unread_kinds_are_skipped_and_not_unreadable(tmp_path, fill):
    files = dict.fromkeys(split_tree(train="ab", test="ab")) | {"train/a/3.png": b"\0\0\0 ftypheic"}
    data = open_dataset(fill(tmp_path, files))
    assert [(item.name, item.reason) for item in data.skipped] == [
        ("train/a/3.png", "HEIC is not read yet")
    ]
    assert data.unreadable == []


def test_every_stress_image_is_used_or_listed(tmp_path, fill, stress):
    fill(tmp_path, {f"odd/{name}": content for name, content in stress.items()})
    fill(tmp_path, ["even/a/1.png", "even/b/2.png"])
    data = open_dataset(tmp_path)
    used = {name for part in names_by_split(data).values() for name in part}
    listed = [*data.skipped, *(item for _, item in data.unreadable)]
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert len(used) == 75 + 2
    assert sorted([*used, *(item.name for item in listed)]) == sorted(files)
    assert all(item.reason for item in listed)


# Channels


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 13])
def test_arrays_keep_their_channels(tmp_path, channels):
    data = open_dataset(write_npz(tmp_path / "a.npz", 30, channels=channels))
    assert data.channels == channels
    assert data.splits["train"].read(0).shape == (5, 4, channels)


def test_files_are_read_in_colour_unless_the_model_is_grey(tmp_path, fill):
    fill(tmp_path, split_tree(train="ab", test="ab"))
    assert open_dataset(tmp_path).channels == 3
    assert open_dataset(tmp_path, channels=1).channels == 1


def test_arrays_that_do_not_fit_the_model_are_an_error(tmp_path):
    path = write_npz(tmp_path / "a.npz", 30, channels=4)
    with pytest.raises(DataError, match="30 4 channels for a model of 3"):
        open_dataset(path, channels=3)


# Identity


def test_the_fingerprint_depends_on_contents_and_labels_alone(tmp_path, fill, picture, encode):
    contents = [encode(picture(seed)) for seed in range(8)]
    where = {f"{'ab'[n % 2]}/{n}.png": content for n, content in enumerate(contents)}
    renamed = {f"{'ab'[n % 2]}/x{9 - n}.png": content for n, content in enumerate(contents)}
    swapped = {f"{'ba'[n % 2]}/{n}.png": content for n, content in enumerate(contents)}
    fewer = dict(list(where.items())[:-1])
    first, same, other_labels, other_contents = (
        open_dataset(fill(tmp_path / str(k), files)).fingerprint()
        for k, files in enumerate([where, renamed, swapped, fewer])
    )
    assert first == same
    assert len({first, other_labels, other_contents}) == 3


def test_examples_can_be_selected(tmp_path):
    part = open_dataset(write_npz(tmp_path / "a.npz", 40)).splits["train"]
    chosen = part.select(np.array([3, 1]))
    assert (len(chosen), chosen.name(0), chosen.name(1)) == (2, part.name(3), part.name(1))
    np.testing.assert_array_equal(chosen.read(0), part.read(3))
    assert chosen.labels.tolist() == part.labels[[3, 1]].tolist()


def test_nothing_there_is_a_bad_request(tmp_path):
    with pytest.raises(RequestError, match="there is nothing at"):
        open_dataset(tmp_path / "none")


# Groups


def groups_of_six(data):
    """Return by split which sixes of the numbered files are in it."""
    return {
        split: {int(name.removesuffix(".png")) // 6 for name in names}
        for split, names in names_by_split(data).items()
    }


def test_images_of_a_group_stay_in_one_split(tmp_path, fill):
    rows = ["path,label,group"]
    for number in range(120):
        fill(tmp_path, [f"{number}.png"])
        rows.append(f"{number}.png,{'ab'[number % 2]},patient {number // 6}")
    (tmp_path / "own.csv").write_text("\n".join(rows))
    groups = groups_of_six(
        open_dataset(tmp_path / "own.csv", settings=DataSettings(source="", validation_share=0.2))
    )
    assert set(groups) == {"train", "validation", "test"}
    assert sum(map(len, groups.values())) == len(set.union(*groups.values())) == 20


def test_training_images_are_held_out_by_group(tmp_path, fill):
    rows = ["path,label,split,group"]
    for number in range(120):
        fill(tmp_path, [f"{number}.png"])
        split = "train" if number < 90 else "test"
        rows.append(f"{number}.png,{'ab'[number % 2]},{split},film {number // 6}")
    (tmp_path / "own.csv").write_text("\n".join(rows))
    data = open_dataset(
        tmp_path / "own.csv", settings=DataSettings(source="", validation_share=0.3)
    )
    groups = groups_of_six(data)
    assert groups["validation"] and not groups["validation"] & groups["train"]
    assert any("held out for validation by group" in note for note in data.notes)


def test_images_of_any_classes_get_marks(tmp_path, fill):
    rows = ["path,labels"]
    for number in range(60):
        fill(tmp_path, [f"{number}.png"])
        rows.append(f"{number}.png,{['b|a', 'a', '', 'c'][number % 4]}")
    (tmp_path / "own.csv").write_text("\n".join(rows))
    data = open_dataset(tmp_path / "own.csv")
    assert data.classes == ("a", "b", "c")
    assert data.is_multi_label
    multi_hot = {"0": [1, 1, 0], "1": [1, 0, 0], "2": [0, 0, 0], "3": [0, 0, 1]}
    for part in data.splits.values():
        for number in range(len(part)):
            kind = str(int(part.name(number).removesuffix(".png")) % 4)
            assert part.labels[number].tolist() == multi_hot[kind]


def test_images_without_any_label_are_no_data(tmp_path, fill):
    fill(tmp_path, ["1.png", "2.png"])
    (tmp_path / "own.csv").write_text("path,labels\n1.png,\n2.png,\n")
    with pytest.raises(DataError, match="has no training image with a label"):
        open_dataset(tmp_path / "own.csv")


# Folds and groups by pattern


def many(tmp_path, fill):
    return fill(tmp_path, [f"{c}/p{n // 3}-{n}.png" for c in "ab" for n in range(30)])


@pytest.mark.parametrize("pattern", ["", r"[ab]/p\d+"])
def test_every_image_is_tested_in_one_fold(tmp_path, fill, pattern):
    root = many(tmp_path, fill)
    tested = []
    for fold in range(5):
        settings = DataSettings(
            source="", folds=5, fold=fold, group_pattern=pattern, validation_share=0.3
        )
        data = open_dataset(root, settings=settings)
        names = names_by_split(data)
        assert len(names["validation"]) >= 5
        assert len(names["test"]) == 12
        assert sum(map(len, names.values())) == 60
        tested += names["test"]
        by = "group" if pattern else "content hash"
        assert f"split by {by} into 5 folds, of which fold {fold} is the test" in data.notes
    assert len(set(tested)) == len(tested) == 60


def test_a_pattern_keeps_groups_together(tmp_path, fill):
    settings = DataSettings(source="", group_pattern=r"p\d+")
    data = open_dataset(many(tmp_path, fill), settings=settings)
    split_of = {}
    for split, names in names_by_split(data).items():
        for name in names:
            group = name.split("/")[1].split("-")[0]
            assert split_of.setdefault(group, split) == split
    assert "split by group: 80 % train, 10 % validation, 10 % test" in data.notes


def test_folds_of_data_with_splits_are_refused(tmp_path, fill):
    fill(tmp_path, split_tree(train="ab", test="ab"))
    with pytest.raises(RequestError, match=r"folds=4: .* has splits of its own, which folds"):
        open_dataset(tmp_path, settings=DataSettings(source="", folds=4))


def test_a_stated_class_may_be_tested_and_never_trained_on(tmp_path):
    # As VTAB's SUN397, whose 800 training images show 309 of 397 classes.
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4), dtype=np.uint8)
    np.savez(
        tmp_path / "a.npz",
        images=images,
        labels=[0, 1, 0, 0, 1, 2],
        classes=["a", "b", "c", "d"],
        split=["train"] * 3 + ["test"] * 3,
    )
    data = open_dataset(tmp_path / "a.npz")
    assert data.classes == ("a", "b", "c", "d")
    assert data.splits["test"].labels.tolist() == [0, 1, 2]
    assert "the test split has 'c', which are never trained on" in data.notes
    assert "no training images of 'c', 'd'" in data.notes


# More files than are read


def test_the_range_of_many_deep_images_is_that_of_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr("vitral.data.scan.MAX_FILES_READ", 3)
    for split in ("train", "test"):
        for number in range(6):
            path = tmp_path / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = np.linspace(0, 4000, 64).astype(np.uint16).reshape(8, 8)
            Image.fromarray(values).save(path)
    data = open_dataset(tmp_path)
    assert not any(file_info.height for file_info in data.file_infos)
    assert data.levels() == (0.0, 4095.0)


def test_of_many_files_some_are_held_out_by_name(tmp_path, fill, monkeypatch):
    monkeypatch.setattr("vitral.data.scan.MAX_FILES_READ", 3)
    names = [f"train/{c}/{n}.png" for c in "ab" for n in range(60)]
    fill(tmp_path, [*names, "test/a/1.png", "test/b/1.png"])
    data = open_dataset(tmp_path, settings=DataSettings(source="", validation_share=0.2))
    assert 10 <= len(data.splits["validation"]) <= 40
    assert any("held out for validation by name" in note for note in data.notes)


def test_a_model_of_numbers_in_another_order_is_mapped_by_name(tmp_path):
    images = np.zeros((3, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=[0, 1, 2], classes=["1", "10", "2"])
    data = open_dataset(tmp_path / "a.npz", classes=("1", "2", "10"))
    assert data.classes == ("1", "2", "10")
    assert sorted(data.everything().labels.tolist()) == [0, 1, 2]
    labels = {
        part.name(i): part.labels[i] for part in data.splits.values() for i in range(len(part))
    }
    assert labels == {"0": 0, "1": 2, "2": 1}
