import pytest
from support.listings import skipped, used

from vitral.data.sources.find import list_source
from vitral.data.sources.listing import SPLIT_NAMES
from vitral.data.sources.lists import states_examples, take_rows
from vitral.errors import DataError

FOLDER = ["cat/1.png", "cat/2.png", "dog/1.png"]


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
        ("", "has no column 'path': its columns must name path,label"),
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


def take(rows, **options):
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return take_rows(rows, columns=columns, where="list", **options)


@pytest.mark.parametrize("column", ["path", "file_name", "image_path"])
def test_the_column_of_paths_has_its_usual_names(column):
    taken = take([{column: "a.png", "label": 3}, {column: "b.png", "label": "x"}])
    assert taken.names == ["a.png", "b.png"]
    assert taken.labels == ["3", "x"]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("a|b", ("a", "b")),
        ("a", ("a",)),
        (" a | b |a", ("a", "b")),
        ("", ()),
        (None, ()),
        (["a", "b"], ("a", "b")),
        ([], ()),
        ([2, 0], ("2", "0")),
    ],
)
def test_several_labels_may_be_joined_or_listed(value, names):
    assert take([{"path": "a.png", "labels": value}]).labels == [names]


def test_numbers_become_class_names():
    taken = take([{"path": "a", "label": 1}], class_name=lambda value: f"class {value}")
    assert taken.labels == ["class 1"]
    taken = take([{"path": "a", "labels": [1, 2]}], class_name=lambda value: f"class {value}")
    assert taken.labels == [("class 1", "class 2")]


def test_groups_are_kept_and_a_row_without_one_is_its_own():
    taken = take(
        [{"path": "a", "label": "x", "group": 7}, {"path": "b", "label": "x", "group": ""}]
    )
    assert taken.groups == ["7", "b"]
    assert take([{"path": "a", "label": "x"}]).groups is None


def test_rows_of_tables_without_a_group_are_each_its_own():
    rows = [{"label": "x", "group": group} for group in (None, "", "g")]
    assert take(rows, needs_path=False).groups == ["0", "1", "g"]


def test_rows_of_tables_are_named_by_their_numbers():
    taken = take([{"label": "x"}, {"label": None}, {"label": "y"}], needs_path=False)
    assert (taken.names, taken.file_ids) == (["0", "2"], [0, 2])
    assert [item.reason for item in taken.skipped] == ["no path or no label in the list"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"label": "x"}], "list has no column 'path'"),
        ([{"path": "a"}], "list has no column 'label'"),
        ([{"path": "a", "label": "x", "labels": "y"}], "has columns 'label' and 'labels'"),
        (
            [{"path": "a", "label": "x", "split": "fold3"}],
            "list line 1: split 'fold3' is not train",
        ),
        (
            [{"path": "a", "label": "x", "split": "train"}, {"path": "b", "label": "x"}],
            "some rows have a split and some have none",
        ),
    ],
)
def test_rows_that_say_too_little_or_too_much_are_an_error(rows, message):
    with pytest.raises(DataError, match=message):
        take(rows)


@pytest.mark.parametrize(
    ("columns", "states"),
    [
        (["path", "label"], True),
        (["file_name", "labels"], True),
        (["file_name", "text"], False),
        (["id", "label"], False),
    ],
)
def test_a_list_of_examples_has_files_and_labels(columns, states):
    assert states_examples(columns) == states
