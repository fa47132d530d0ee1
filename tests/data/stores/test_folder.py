import os

import pytest

from vitral.data.stores.folder import FolderStore


def test_the_stamp_of_a_file_changes_with_its_size_and_time(tmp_path, fill):
    store = FolderStore(fill(tmp_path, {"a": b"1", "b": b"22"}), ["a", "b", "none"])
    first = store.stamp(0)
    assert first != store.stamp(1)
    os.utime(tmp_path / "a", ns=(5, 5))
    assert store.stamp(0) != first
    assert store.stamp(2) is None
    with pytest.raises(FileNotFoundError):
        store.read(2)
