import struct

import pytest

from vitral.errors import DataError
from vitral.files.tfrecord import find_records, masked_crc32c, read_features


def record(content):
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
    turned = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
    assert masked_crc32c(bytes(32)) == (turned + 0xA282EAD8) % 2**32


def test_the_places_of_records_are_found():
    content = b"before" + record(b"one") + record(b"") + record(b"three") + b"after"
    found = spans(content, span=(6, len(content) - 5))
    assert [content[start:end] for start, end in found] == [b"one", b"", b"three"]
    assert spans(b"") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (record(b"one") + record(b"two")[:-1], "file is cut short: the record at byte 31 has 3"),
        (record(b"one") + b"\3\0", "file is damaged: there is no record at byte 19"),
        (b"\4" + record(b"one")[1:], "file is damaged: there is no record at byte 0"),
        (b"no records at all", "file is damaged"),
    ],
)
def test_a_damaged_file_is_an_error(content, message):
    with pytest.raises(DataError, match=message):
        spans(content)


def field(number, content):
    return bytes([number << 3 | 2, len(content)]) + content


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
