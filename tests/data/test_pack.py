"""Packing: what goes into shards comes out again, wherever the work was stopped."""

import json
import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vitral.data import pack as pack_module
from vitral.data.dataset import open_dataset
from vitral.data.decode import decode_image
from vitral.data.order import epoch_order
from vitral.data.pack import pack
from vitral.data.pack_shard import PackSettings
from vitral.errors import DataError, RequestError

NAMES = {
    "train": [f"train/{kind}/{n}.png" for kind in ("cat", "dog") for n in range(7)],
    "test": [f"test/{kind}/{n}.jpg" for kind in ("cat", "dog") for n in range(2)],
}


@pytest.fixture
def folder(tmp_path, fill):
    return fill(tmp_path / "photos", [name for names in NAMES.values() for name in names])


def packed(data, path, **settings):
    return pack(open_dataset(data), path, PackSettings(**settings), name="photos")


def contents(data):
    """What each example is: split, name, class, bytes."""
    return sorted(
        (split, part.name(i), data.classes[part.labels[i]], part.read(i))
        for split, part in data.splits.items()
        for i in range(len(part))
    )


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("size", [1, 4, 14, 5000])
def test_what_is_packed_is_what_was_there(folder, tmp_path, size):
    pack_record = packed(folder, tmp_path / "packed", images_per_shard=size)
    data, again = open_dataset(folder), open_dataset(tmp_path / "packed")
    assert contents(again) == contents(data)
    assert again.classes == data.classes
    assert again.fingerprint() == data.fingerprint()
    assert pack_record["splits"] == {"train": 14, "test": 4}
    assert len(pack_record["shards"]) == -(-14 // size) + -(-4 // size)
    assert "every image has the bytes of its source" in pack_record["images"]


def test_a_pack_is_opened_without_reading_an_image(folder, tmp_path, monkeypatch):
    packed(folder, tmp_path / "packed")
    monkeypatch.setattr("vitral.data.scan.inspect_file", None)
    data = open_dataset(tmp_path / "packed")
    assert sum(map(len, data.splits.values())) == 18
    assert {file_info.format for file_info in data.file_infos} == {"PNG"}


def test_the_classes_of_a_split_are_mixed_over_its_shards(tmp_path, fill):
    names = [f"{kind}/{n}.png" for kind in ("cat", "dog") for n in range(200)]
    content = (fill(tmp_path / "one", ["a.png"]) / "a.png").read_bytes()
    fill(tmp_path / "photos", dict.fromkeys(names, content))
    pack_record = packed(tmp_path / "photos", tmp_path / "packed", images_per_shard=100)
    data = open_dataset(tmp_path / "packed")
    assert len(pack_record["shards"]) == 4
    (part,) = data.splits.values()
    # Each shard holds 100 of 400, of which 50 are expected to be cats, with a deviation of 4.3.
    assert all(30 < part.labels[start : start + 100].sum() < 70 for start in range(0, 400, 100))


def test_an_epoch_has_no_memory_of_the_shards(tmp_path):
    images = np.zeros((3000, 4, 4), np.uint8)
    images[:, 0, :2] = np.arange(3000)[:, None] // [256, 1] % 256
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(3000) // 1500)
    packed(tmp_path / "a.npz", tmp_path / "packed", images_per_shard=100)
    train = open_dataset(tmp_path / "packed").splits["train"]
    for epoch in range(5):
        order = epoch_order(0, epoch, len(train), blocks=train.blocks())
        file_ids = train.file_ids[order]  # in the shards, one after the other
        rank_correlation = np.corrcoef(np.arange(len(file_ids)), file_ids.argsort().argsort())[0, 1]
        assert abs(rank_correlation) < 4 / np.sqrt(len(file_ids))


def test_other_tools_read_the_shards(folder, tmp_path):
    packed(folder, tmp_path / "packed")
    with tarfile.open(tmp_path / "packed" / "train-00000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    assert list(members)[:4] == ["00000000.png", "00000000.cls", "00000001.png", "00000001.cls"]
    assert {members[name] for name in members if name.endswith(".cls")} == {b"0", b"1"}
    assert (tmp_path / "packed" / "classes.txt").read_text() == "cat\ndog\n"
    listed = open_dataset(str(tmp_path / "packed" / "*.tar"))  # as WebDataset's shards
    assert listed.classes == ("cat", "dog")
    assert {split: len(part) for split, part in listed.splits.items()} == {"train": 14, "test": 4}


class StopError(Exception):
    """A stop at some moment."""


@pytest.mark.parametrize("stop", range(6))
def test_a_pack_goes_on_where_it_was_stopped(folder, tmp_path, monkeypatch, stop):
    packed(folder, tmp_path / "whole", images_per_shard=4)
    renames, original = [], os.replace

    def replace(self, target):
        if len(renames) == 2 * stop:
            raise StopError
        renames.append(target)
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", replace)
        with pytest.raises(StopError):
            packed(folder, tmp_path / "packed", images_per_shard=4)
    if stop:
        with pytest.raises(DataError, match="is not packed to its end: the same `vitral data pack"):
            open_dataset(tmp_path / "packed")
    written = []
    monkeypatch.setattr(pack_module, "write_shard", _counting(pack_module.write_shard, written))
    packed(folder, tmp_path / "packed", images_per_shard=4)
    assert files(tmp_path / "packed") == files(tmp_path / "whole")
    assert len(written) == 5 - max(0, (2 * stop - 1) // 2)


def _counting(function, calls):
    def call(path, *rest):
        calls.append(path.name)
        return function(path, *rest)

    return call


def test_a_pack_that_is_complete_is_left_alone(folder, tmp_path):
    first = packed(folder, tmp_path / "packed")
    before = files(tmp_path / "packed")
    assert packed(folder, tmp_path / "packed") == first
    assert files(tmp_path / "packed") == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resize": 8}, "was begun with resize 0, not 8: give another --output"),
        ({"images_per_shard": 3}, "images_per_shard 5000, not 3"),
    ],
)
def test_a_pack_of_other_settings_is_refused(folder, tmp_path, settings, message):
    packed(folder, tmp_path / "packed")
    with pytest.raises(RequestError, match=message):
        packed(folder, tmp_path / "packed", **settings)


def test_a_pack_of_other_data_is_refused(folder, tmp_path, fill):
    packed(folder, tmp_path / "packed")
    fill(folder, ["train/cat/new.png"])
    with pytest.raises(RequestError, match="was begun with data [0-9a-f]{32}, not [0-9a-f]{32}"):
        packed(folder, tmp_path / "packed")


def test_a_folder_of_something_else_is_not_touched(folder, tmp_path, fill):
    fill(tmp_path / "mine", {"notes.txt": b"mine"})
    with pytest.raises(RequestError, match="holds something else: give an --output of its own"):
        packed(folder, tmp_path / "mine")
    assert files(tmp_path / "mine") == {"notes.txt": b"mine"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resize": -1}, "resize=-1"),
        ({"images_per_shard": 0}, "images_per_shard=0: give 0 or more pixels, and one image"),
        ({"quality": 0}, "quality=0: give 1 to 100"),
        ({"quality": 101}, "quality=101: give 1 to 100"),
    ],
)
def test_bad_settings_are_errors(settings, message):
    with pytest.raises(RequestError, match=message):
        PackSettings(**settings)


# What becomes of the images


def test_large_images_are_shrunk_and_others_keep_their_bytes(tmp_path, fill, picture, encode):
    names = [f"{kind}/{n}.png" for kind in "ab" for n in range(9)]
    large = {name: encode(picture(n, size=(60, 90))) for n, name in enumerate(names)}
    special = {
        "a/small.png": encode(picture(1, size=(20, 90))),
        "a/clear.png": encode(picture(2, size=(60, 90), mode="RGBA")),
        "a/palette.png": encode(picture(3, size=(60, 90), mode="P")),
        "b/deep.png": encode(picture(3, size=(60, 90), mode="L").convert("I;16")),
    }
    fill(tmp_path / "photos", large | special)
    pack_record = packed(tmp_path / "photos", tmp_path / "packed", resize=32, quality=95)
    assert (
        "were shrunk to it (bicubic, antialias) and encoded as JPEG of quality 95"
        in pack_record["images"]
    )
    data = open_dataset(tmp_path / "packed")
    found = {name: content for _, name, _, content in contents(data)}
    assert {name: found[name] for name in special} == special
    for name, original in large.items():
        shown = decode_image(found[name])
        assert shown.shape == (32, 48, 3)
        assert found[name][:3] == b"\xff\xd8\xff"
        assert abs(shown.mean() - decode_image(original).mean()) < 2
    assert pack_record["images"] in data.notes[0]


def test_arrays_stay_as_they_are(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 9, 9), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(12) % 2)
    packed(tmp_path / "a.npz", tmp_path / "packed", resize=4)
    before, after = open_dataset(tmp_path / "a.npz"), open_dataset(tmp_path / "packed")
    assert after.channels == before.channels == 1
    assert {split: len(part) for split, part in after.splits.items()} == {
        split: len(part) for split, part in before.splits.items()
    }
    for part in after.splits.values():
        for number in range(len(part)):
            pixels = decode_image(part.read(number), channels=1)
            np.testing.assert_array_equal(pixels[:, :, 0], images[int(part.name(number))])


def test_several_labels_and_groups_are_kept(tmp_path, fill):
    names = [f"{n}.png" for n in range(20)]
    fill(tmp_path, names)
    labels = [["", "a", "b", "a|b"][n % 4] for n in range(20)]
    rows = [f"{names[n]},{labels[n]},g{n // 2}" for n in range(20)]
    (tmp_path / "list.csv").write_text("\n".join(["path,labels,group", *rows]))
    packed(tmp_path / "list.csv", tmp_path / "packed")
    before, after = open_dataset(tmp_path / "list.csv"), open_dataset(tmp_path / "packed")
    assert after.is_multi_label

    def known(data):
        return {
            part.name(i): (split, part.labels[i].tolist(), data.listing.groups[part.file_ids[i]])
            for split, part in data.splits.items()
            for i in range(len(part))
        }

    assert known(after) == known(before)
    with tarfile.open(tmp_path / "packed" / "train-00000.tar") as tar:
        label_record = json.loads(tar.extractfile("00000000.json").read())
    assert set(label_record["labels"]) <= {"a", "b"}


def test_what_is_left_out_is_listed(folder, tmp_path, fill):
    fill(folder, {"train/cat/bad.png": b"no image", "train/cat/notes.txt": b"mine"})
    pack_record = packed(folder, tmp_path / "packed")
    assert pack_record["num_skipped"] == 2
    assert (tmp_path / "packed" / "skipped.csv").read_text().splitlines() == [
        "path,reason",
        "train/cat/notes.txt,not an image",
        "train/cat/bad.png,not an image",
    ]


def test_an_image_that_went_bad_since_is_left_out_and_listed(folder, tmp_path, fill):
    data = open_dataset(folder)
    fill(folder, {"train/cat/0.png": b"", "test/dog/1.jpg": b"\x89PNG\r\n\x1a\nbroken"})
    (folder / "train/cat/1.png").unlink()
    pack_record = pack(data, tmp_path / "packed", PackSettings(), name="photos")
    assert pack_record["splits"] == {"train": 12, "test": 3}
    reasons = (tmp_path / "packed" / "skipped.csv").read_text()
    assert "train/cat/0.png,an empty file" in reasons
    assert "test/dog/1.jpg,a damaged PNG header" in reasons
    assert "train/cat/1.png,can't be read" in reasons
    assert sum(map(len, open_dataset(tmp_path / "packed").splits.values())) == 15


def test_a_pack_does_not_go_on_over_another_order(folder, tmp_path, pack_archive):
    packed(folder, tmp_path / "packed", images_per_shard=4)
    archive = pack_archive(folder, tmp_path / "photos.zip")
    assert open_dataset(archive).fingerprint() == open_dataset(folder).fingerprint()
    with pytest.raises(RequestError, match="was begun with order [0-9a-f]{32}, not"):
        packed(archive, tmp_path / "packed", images_per_shard=4)


@pytest.fixture
def pack_archive(pack):
    """A function that packs a folder's files into a zip, in reverse order."""

    def run(root, path):
        files_ = sorted((p for p in root.rglob("*") if p.is_file()), reverse=True)
        return pack(path, {p.relative_to(root).as_posix(): p.read_bytes() for p in files_})

    return run


def test_a_table_is_packed_block_by_block(tmp_path, picture, encode, monkeypatch):
    monkeypatch.setattr("vitral.data.order.WINDOW", 20)
    monkeypatch.setattr("vitral.data.sources.arrow._ROWS_KEPT", 40)
    images = [encode(picture(n)) for n in range(200)]
    table = pa.table({"image": images, "label": ["a", "b"] * 100, "split": ["train"] * 200})
    path = tmp_path / "train.parquet"
    pq.write_table(table, path, row_group_size=10)
    data = open_dataset(path)
    reads, original = [], pq.ParquetFile.read_row_group

    def count(file, group, **options):
        reads.append(group)
        return original(file, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", count)
    pack(data, tmp_path / "packed", PackSettings(images_per_shard=1000), name="table")
    assert len(reads) <= 3 * 20 + 20  # three splits by hash, twenty groups each


def test_a_pack_of_many_images_knows_what_they_are(folder, tmp_path, monkeypatch):
    packed(folder, tmp_path / "packed")
    monkeypatch.setattr("vitral.data.scan.MAX_FILES_READ", 3)
    assert all(file_info.digest for file_info in open_dataset(tmp_path / "packed").file_infos)
