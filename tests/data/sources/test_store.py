import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.data.sources.archives import open_archive
from vitral.data.sources.arrays import ArrayStore
from vitral.data.sources.store import FolderStore, JoinedStore, SelectedStore, Texts

FILES = {"cat/1.png": b"one", "cat/2.png": b"", "dog/1.png": bytes(range(256)) * 9}


def contents(store):
    return {name: store.read(number) for number, name in enumerate(store.names)}


def test_joined_stores_number_through(tmp_path, fill, pack):
    folder = FolderStore(fill(tmp_path, FILES), list(FILES))
    archive = open_archive(pack(tmp_path / "a.zip", {"cat/1.png": b"another"}))
    nothing = ArrayStore(np.zeros((0, 2, 2), np.uint8), path="none")
    store = JoinedStore([folder, nothing, archive], ["train/", "no/", "test/"])
    expected = {f"train/{name}": content for name, content in FILES.items()}
    assert contents(store) == expected | {"test/cat/1.png": b"another"}
    assert store.stamp(3) == archive.stamp(0)
    assert store.stamp(2) == folder.stamp(2)


class _Blocks(FolderStore):
    """Files that are read together, so many at a time."""

    def __init__(self, sizes):
        super().__init__(None, [str(n) for n in range(sum(sizes))])
        self.sizes = sizes

    def blocks(self):
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


def test_joined_blocks_stay_apart(tmp_path):
    single = FolderStore(tmp_path, ["a", "b"])
    joined = JoinedStore([_Blocks([2, 1]), single, _Blocks([]), _Blocks([3])], "wxyz")
    assert joined.blocks().tolist() == [0, 0, 1, 2, 3, 4, 4, 4]
    assert JoinedStore([single, single], "xy").blocks() is None


def test_selected_files_keep_their_blocks():
    selected = SelectedStore(_Blocks([2, 2, 1]), [4, 0, -1, 1], names="abcd")
    assert selected.blocks().tolist() == [2, 0, 3, 0]
    assert SelectedStore(FolderStore(None, ["a"]), [0]).blocks() is None


def test_selected_files_are_renumbered(tmp_path, fill):
    store = FolderStore(fill(tmp_path, FILES), list(FILES))
    selected = SelectedStore(store, [2, 0])
    assert contents(selected) == {name: FILES[name] for name in ("dog/1.png", "cat/1.png")}
    assert selected.stamp(0) == store.stamp(2)


def test_the_stamp_of_a_file_changes_with_its_size_and_time(tmp_path, fill):
    store = FolderStore(fill(tmp_path, {"a": b"1", "b": b"22"}), ["a", "b", "none"])
    first = store.stamp(0)
    assert first != store.stamp(1)
    os.utime(tmp_path / "a", ns=(5, 5))
    assert store.stamp(0) != first
    assert store.stamp(2) is None
    with pytest.raises(FileNotFoundError):
        store.read(2)


TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])))


@given(TEXTS, TEXTS)
def test_texts_come_back_one_by_one(first, second):
    both = Texts.joined([Texts.of(first), Texts.of(second)])
    assert list(both) == first + second
    assert both[:] == first + second
    assert both[::-2] == (first + second)[::-2]
    assert len(both) == len(first) + len(second)


def test_names_that_are_no_valid_text_come_back():
    assert list(Texts.of(["caf\udce9.png", ""])) == ["caf\udce9.png", ""]


def test_texts_end_at_their_end():
    texts = Texts.of(["a", "b"])
    assert texts[-1] == "b"
    for number in (2, -3):
        with pytest.raises(IndexError):
            texts[number]
