import numpy as np

from vitral.data.stores.archives import open_archive
from vitral.data.stores.arrays import ArrayStore
from vitral.data.stores.folder import FolderStore
from vitral.data.stores.store import JoinedStore, SelectedStore

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
