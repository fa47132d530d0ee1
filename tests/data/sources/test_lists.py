import pytest
from listings import skipped, used

from vitral.data.sources.find import list_source
from vitral.data.sources.listing import SPLIT_NAMES
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
