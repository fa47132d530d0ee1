import pytest

from vitral.data.datasets.dtd import read_dtd
from vitral.data.datasets.table import TASKS
from vitral.errors import DataError

LISTS = {"train1": ["banded/banded_0002.jpg", "zigzagged/zigzagged_0001.jpg"],
         "val1": ["dotted/dotted_0001.jpg"], "test1": ["banded/banded_0005.jpg"]}  # fmt: skip


def files():
    names = [name for rows in LISTS.values() for name in rows]
    lists = {
        f"dtd/labels/{list_name}.txt": "\n".join(rows).encode() for list_name, rows in LISTS.items()
    }
    return lists | {f"dtd/images/{name}": name.encode() for name in names}


def test_the_first_fold_is_read(tmp_path, pack, place_of):
    pack(tmp_path / "dtd-r1.0.1.tar.gz", files())
    published = read_dtd(place_of(TASKS["dtd"]))
    assert published.classes == ("banded", "dotted", "zigzagged")
    assert published.parts["train"].labels == ["banded", "zigzagged"]
    assert published.parts["train"].keys == LISTS["train1"]
    assert published.parts["validation"].labels == ["dotted"]
    assert published.parts["test"].store.read(0) == b"banded/banded_0005.jpg"


def test_a_missing_list_is_an_error(tmp_path, fill, place_of):
    contents = files()
    del contents["dtd/labels/val1.txt"]
    fill(tmp_path, contents)
    with pytest.raises(DataError, match=r"has no dtd/labels/val1\.txt"):
        read_dtd(place_of(TASKS["dtd"]))
