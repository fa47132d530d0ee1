import struct
import tarfile

import pytest

from vitral.data.datasets.dmlab import (
    ARCHIVE,
    find_records,
    masked_crc32c,
    read_dmlab,
    read_features,
)
from vitral.data.datasets.table import TASKS
from vitral.errors import DataError

FRAMES = {
    "dmlab-train.tfrecord-00000-of-00002": [("a_1", 0), ("a_2", 5)],
    "dmlab-train.tfrecord-00001-of-00002": [("a_3", 3)],
    "dmlab-validation.tfrecord-00000-of-00001": [("b_1", 2)],
    "dmlab-test.tfrecord-00000-of-00001": [("c_1", 4), ("c_2", 1)],
}
TEST = "dmlab-test.tfrecord-00000-of-00001"


def varint(number):
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(name, value):
    kind = 3 if isinstance(value, int) else 1
    content = varint(value) if isinstance(value, int) else value
    return field(1, field(1, name.encode()) + field(2, field(kind, field(1, content))))


def record(**values):
    content = field(1, b"".join(feature(name, value) for name, value in values.items()))
    length = struct.pack("<Q", len(content))
    checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, content))
    return length + next(checksums) + content + next(checksums)


@pytest.fixture(scope="module")
def images(picture, encode):
    names = [name for frames in FRAMES.values() for name, _ in frames]
    return {name: encode(picture(n), "JPEG") for n, name in enumerate(names)}


@pytest.fixture(scope="module")
def files(images):
    return {
        shard: b"".join(
            record(filename=name.encode(), image=images[name], label=label)
            for name, label in frames
        )
        for shard, frames in FRAMES.items()
    }


def read(place_of):
    return read_dmlab(place_of(TASKS["dmlab"]))


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_records_are_read_where_they_lie(tmp_path, fill, pack, place_of, files, images, form):
    contents = files | {"readme.txt": b"stray"}
    if form == "archive":
        pack(tmp_path / ARCHIVE, contents)
    else:
        fill(tmp_path / "dmlab", contents)
    published = read(place_of)
    assert published.classes == ("0", "1", "2", "3", "4", "5")
    parts = published.parts
    assert {split: part.labels for split, part in parts.items()} == {
        "train": ["0", "5", "3"], "validation": ["2"], "test": ["4", "1"]
    }  # fmt: skip
    assert parts["train"].keys == ["a_1", "a_2", "a_3"]
    for part in parts.values():
        assert [part.store.read(n) for n in range(len(part.keys))] == [
            images[name] for name in part.keys
        ]
        assert part.store.blocks() is None
    assert parts["train"].store.names == ["a_1", "a_2", "a_3"]
    assert len({parts["train"].store.stamp(n) for n in range(3)}) == 3


def test_an_empty_file_holds_no_frames(tmp_path, fill, place_of, files):
    fill(tmp_path / "dmlab", files | {TEST: b""})
    assert read(place_of).parts["test"].labels == []


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_a_split_without_files_is_an_error(tmp_path, fill, pack, place_of, files, form):
    contents = {name: content for name, content in files.items() if name != TEST}
    if form == "archive":
        pack(tmp_path / ARCHIVE, contents)
    else:
        fill(tmp_path / "dmlab", contents)
    with pytest.raises(DataError, match=r"has no files dmlab-test\.tfrecord\*"):
        read(place_of)


def test_a_link_in_the_archive_holds_no_frames(tmp_path, pack, place_of, files):
    path = pack(
        tmp_path / "plain.tar", {name: content for name, content in files.items() if name != TEST}
    )
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo(TEST)
        link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
        archive.addfile(link)
    path.rename(tmp_path / ARCHIVE)
    assert read(place_of).parts["test"].labels == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no records", "is damaged: there is no record at byte 0"),
        (record(image=b"x", filename=b"y", label=1)[:-1], "is cut short"),
        (record(image=b"x", filename=b"y", label=6), "label 6, wanted 0 to 5"),
        (record(image=b"x", filename=b"y", label=b"1"), r"label \(\d+, \d+\), wanted 0 to 5"),
        (record(image=b"x", filename=b"y"), "label None, wanted 0 to 5"),
        (record(image=b"x", label=1), "holds features image, label, wanted bytes `image`"),
        (record(filename=b"x", image=1), "holds features filename, image, wanted"),
        (record(), "holds features none, wanted"),
    ],
)
def test_other_contents_are_an_error(tmp_path, fill, place_of, files, content, message):
    fill(tmp_path / "dmlab", files | {TEST: content})
    with pytest.raises(DataError, match=f"{TEST}.* {message}"):
        read(place_of)


def test_damage_of_the_archive_is_an_error(tmp_path, pack, place_of, files):
    path = pack(tmp_path / ARCHIVE, files)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="can't be unpacked"):
        read(place_of)


def framed(content):
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked_crc32c(length)) + content + b"\1\2\3\4"


def spans(content, **options):
    span = options.get("span", (0, len(content)))
    return list(find_records(content, span=span, where="file"))


def features(content):
    return read_features(content, span=(0, len(content)), where="file")


def test_the_checksum_is_castagnolis_turned_and_moved():
    # RFC 3720, B.4: CRC32C of 32 bytes of zeros is 8a9136aa.
    crc = 0x8A9136AA
    rotated = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
    assert masked_crc32c(bytes(32)) == (rotated + 0xA282EAD8) % 2**32


def test_the_places_of_records_are_found():
    content = b"before" + framed(b"one") + framed(b"") + framed(b"three") + b"after"
    found = spans(content, span=(6, len(content) - 5))
    assert [content[start:end] for start, end in found] == [b"one", b"", b"three"]
    assert spans(b"") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (framed(b"one") + framed(b"two")[:-1], "file is cut short: the record at byte 31 has 3"),
        (framed(b"one") + b"\3\0", "file is damaged: there is no record at byte 19"),
        (b"\4" + framed(b"one")[1:], "file is damaged: there is no record at byte 0"),
        (b"no records at all", "file is damaged"),
    ],
)
def test_a_damaged_file_is_an_error(content, message):
    with pytest.raises(DataError, match=message):
        spans(content)


def example(**values):
    """An example whose values are the bytes of a `Feature`."""
    entries = [field(1, name.encode()) + field(2, value) for name, value in values.items()]
    return field(1, b"".join(field(1, entry) for entry in entries))


def test_the_first_value_of_each_feature_is_read():
    content = example(
        text=field(1, field(1, b"first") + field(1, b"second")),
        packed=field(3, field(1, b"\xac\x02\x05")),
        single=field(3, b"\x08\x07"),
        floats=field(2, field(1, struct.pack("<2f", 1, 2))),
        empty=field(3, b""),
        nothing=field(3, field(1, b"")),
        none=b"",
    )
    found = features(content)
    assert content[slice(*found.pop("text"))] == b"first"
    assert found == {"packed": 300, "single": 7}


def test_fields_that_are_not_known_are_passed_over():
    unknown = b"\x39" + bytes(8) + b"\x3d" + bytes(4) + b"\x38\x96\x01" + field(6, b"x")
    assert features(unknown + example(label=field(3, field(1, b"\x03")))) == {"label": 3}


@pytest.mark.parametrize(
    "content",
    [
        field(1, b"abc")[:-1],
        b"\x0a\xff",
        b"\xff" * 20,
        b"\x0b",
        field(1, field(1, field(2, b""))),
        field(1, field(1, field(1, b"\xff"))),
        example(label=field(3, field(1, b"\x80"))),
    ],
)
def test_other_bytes_are_an_error(content):
    with pytest.raises(DataError, match="file holds a record that is no example"):
        features(content)
