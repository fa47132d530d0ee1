import json

import numpy as np
import pytest

from vitral.data.dataset import open_dataset
from vitral.data.pack import pack
from vitral.data.pack_shard import PackSettings
from vitral.data.sources.find import list_source
from vitral.errors import DataError


@pytest.fixture
def packed(tmp_path, fill):
    fill(tmp_path / "photos", [f"{kind}/{n}.png" for kind in "ab" for n in range(10)])
    pack(open_dataset(tmp_path / "photos"), tmp_path / "packed", PackSettings(), name="photos")
    return tmp_path / "packed"


def test_the_findings_are_those_of_the_survey(packed):
    data = open_dataset(packed / ".." / "photos")
    listing = list_source(packed)
    by_name = {
        part.name(i): data.file_infos[part.file_ids[i]]
        for part in data.splits.values()
        for i in range(len(part))
    }
    assert list(listing.file_infos) == [by_name[name] for name in listing.store.names]
    assert listing.file_infos[:2] == [listing.file_infos[0], listing.file_infos[1]]
    with pytest.raises(IndexError):
        listing.file_infos[len(listing.file_infos)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "pack.json can't be read"),
        ("[]", "pack.json can't be read"),
        ('{"format_version": 2}', "pack.json is of version 2, this Vitral reads 1"),
    ],
)
def test_a_statement_that_is_not_read_is_an_error(packed, content, message):
    (packed / "pack.json").write_text(content)
    with pytest.raises(DataError, match=message):
        list_source(packed)


def test_a_pack_that_is_not_complete_is_an_error(packed):
    record = json.loads((packed / "pack.json").read_text())
    (packed / "pack.json").write_text(json.dumps(record | {"complete": False}))
    with pytest.raises(DataError, match="is not packed to its end"):
        list_source(packed)


def test_a_damaged_image_is_told_by_its_checksum(packed):
    store = list_source(packed).store
    content = store.read(0)
    tar = packed / "train-00000.tar"
    tar.write_bytes(tar.read_bytes().replace(content, content[:-1] + b"?"))
    with pytest.raises(OSError, match=r"damaged in train-00000\.tar: its checksum is another one"):
        list_source(packed).store.read(0)


def test_a_shard_that_is_cut_short_is_an_error(packed):
    tar = packed / "train-00000.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"train-00000\.tar is cut short: it has 3,000 bytes"):
        list_source(packed)


def test_a_shard_that_is_missing_is_an_error(packed):
    (packed / "train-00000.tar").unlink()
    with pytest.raises(DataError, match=r"train-00000\.tar can't be read: No such file"):
        list_source(packed)


def test_an_index_that_is_missing_is_an_error(packed):
    (packed / "train-00000.npz").unlink()
    with pytest.raises(DataError, match=r"there is no .*train-00000\.npz, the index of a shard"):
        list_source(packed)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\3\4 and no more", None])
def test_a_damaged_index_is_an_error(packed, content):
    path = packed / "train-00000.npz"
    if content is None:
        np.savez(path, rows=np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-00000\.npz is a damaged index: .*: pack the data"):
        list_source(packed)


def test_a_stamp_follows_the_shard(packed):
    store = list_source(packed).store
    assert len({store.stamp(number) for number in range(len(store.names))}) == 20
    assert store.blocks() is None
