import pytest

from vitral.data.sources.rows import states_examples, take_rows
from vitral.errors import DataError


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
    rows = [{"label": "x", "group": own} for own in (None, "", "g")]
    assert take(rows, needs_path=False).groups == ["0", "1", "g"]


def test_rows_of_tables_are_named_by_their_numbers():
    taken = take([{"label": "x"}, {"label": None}, {"label": "y"}], needs_path=False)
    assert (taken.names, taken.numbers) == (["0", "2"], [0, 2])
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
