import datasets
import pytest

from vitral.data.dataset import open_dataset
from vitral.data.sources.find import list_source
from vitral.data.sources.huggingface import RowsStore
from vitral.errors import DataError, RequestError


def rows(picture, encode, count=6, **columns):
    values = {
        "image": [{"bytes": encode(picture(n)), "path": None} for n in range(count)]
    } | columns
    return datasets.Dataset.from_dict(values).cast_column("image", datasets.Image())


def save(data, root):
    data.save_to_disk(str(root))
    return root


def test_a_data_set_without_splits_is_split_by_content(tmp_path, picture, encode):
    data = rows(picture, encode, 40, label=["a", "b"] * 20)
    opened = open_dataset(save(data, tmp_path / "saved"))
    assert opened.classes == ("a", "b")
    assert sum(map(len, opened.splits.values())) == 40
    assert not opened.has_own_splits


def test_groups_stay_together_beside_declared_splits(tmp_path, picture, encode):
    splits = {
        "train": rows(picture, encode, 4, label=["a", "b"] * 2, group=["x", "x", "y", ""]),
        "test": rows(picture, encode, 2, label=["a", "b"], group=["z", "z"]),
    }
    listing = list_source(save(datasets.DatasetDict(splits), tmp_path / "saved"))
    assert len(listing.groups) == len(listing.labels) == 6
    assert sorted(map(listing.groups.count, set(listing.groups))) == [1, 1, 2, 2]


def test_rows_without_a_known_label_are_listed(tmp_path, picture, encode):
    names = datasets.ClassLabel(names=["owl", "wren"])
    data = rows(picture, encode, 3, label=[1, 0, -1]).cast_column("label", names)
    listing = list_source(save(data, tmp_path / "saved"))
    assert listing.labels == ["wren", "owl"]
    assert len(listing.skipped) == 1


def test_images_are_given_as_they_are_stored(tmp_path, picture, encode):
    content = encode(picture(), "JPEG")
    data = datasets.Dataset.from_dict(
        {"image": [{"bytes": content, "path": None}], "label": ["a"]}
    ).cast_column("image", datasets.Image())
    listing = list_source(save(data, tmp_path / "saved"))
    assert listing.store.read(0) == content
    assert listing.store.stamp(0)


def test_an_unknown_split_is_an_error(tmp_path, picture, encode):
    parts = datasets.DatasetDict({"unsupervised": rows(picture, encode, label=["a"] * 6)})
    with pytest.raises(DataError, match="has a split 'unsupervised': name it train"):
        list_source(save(parts, tmp_path / "saved"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["x"] * 6}, "has no column 'label'"),
        (None, "has no column of images: it has text"),
    ],
)
def test_a_data_set_that_lacks_a_column_is_an_error(tmp_path, picture, encode, columns, message):
    data = (
        rows(picture, encode, **columns)
        if columns
        else datasets.Dataset.from_dict({"text": ["a"], "label": ["b"]})
    )
    with pytest.raises(DataError, match=message):
        list_source(save(data, tmp_path / "saved"))


def test_a_damaged_data_set_is_an_error(tmp_path, picture, encode):
    path = save(rows(picture, encode, label=["a"] * 6), tmp_path / "saved")
    next(path.glob("*.arrow")).unlink()
    with pytest.raises(DataError, match="can't be read"):
        list_source(path)


def test_without_the_library_the_extra_is_named(tmp_path, picture, encode, monkeypatch):
    path = save(rows(picture, encode, label=["a"] * 6), tmp_path / "saved")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(RequestError, match=r"pip install 'vitral\[hf\]'"):
        list_source(path)


def test_rows_that_name_files_have_no_stamp(tmp_path, fill):
    fill(tmp_path, ["a.png"])
    data = datasets.Dataset.from_dict({"image": [str(tmp_path / "a.png")], "label": ["a"]})
    store = RowsStore(data.cast_column("image", datasets.Image()), "image")
    assert store.read(0) == (tmp_path / "a.png").read_bytes()
    assert store.stamp(0) is None
    assert store.blocks() is None
