"""TensorFlow's record files and the examples in them, without TensorFlow.

A record is its length (8 bytes), the length's checksum (4), its bytes, and their checksum (4).
An example is a message of Google's protocol buffers: of features, each a name and a list of bytes,
floats or whole numbers. Only what a reader of images needs is read: where records lie, and the
first value of each feature.

Sources: TensorFlow, `core/lib/io/record_writer.h`, `core/lib/hash/crc32c.h` and
`core/example/{example,feature}.proto`; https://protobuf.dev/programming-guides/encoding.
"""

import functools
import struct
from collections.abc import Iterator
from mmap import mmap

from vitral.errors import DataError

_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_BYTES_LIST, _INT_LIST = 1, 3
Buffer = bytes | mmap
Span = tuple[int, int]
"""From where in a buffer to where something lies."""


def find_records(buffer: Buffer, *, span: Span, where: str) -> Iterator[Span]:
    """Give where the bytes of each record lie.

    Of checksums only that of the length is compared: that of the bytes would need all of them.

    Args:
        buffer: with the file in it.
        span: of the file.
        where: it comes from, for errors.

    Raises:
        DataError: a length is damaged, or the file is cut short.
    """
    start, end = span
    while start < end:
        header = buffer[start : min(start + _LENGTH_BYTES + _CHECKSUM_BYTES, end)]
        first = start + _LENGTH_BYTES + _CHECKSUM_BYTES
        length, checksum = struct.unpack("<QI", header.ljust(first - start, b"\0"))
        if masked_crc32c(header[:_LENGTH_BYTES]) != checksum:
            raise DataError(f"{where} is damaged: there is no record at byte {start - span[0]:,}")
        start = first + length + _CHECKSUM_BYTES
        if start > end:
            raise DataError(
                f"{where} is cut short: the record at byte {first - span[0]:,} has {length:,} bytes"
            )
        yield first, first + length


def masked_crc32c(content: bytes) -> int:
    """Return TensorFlow's checksum: CRC-32 of Castagnoli's polynomial, turned and moved."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in content:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read_features(buffer: Buffer, *, span: Span, where: str) -> dict[str, int | Span]:
    """Return the first value of each feature of an example: a whole number, or where bytes lie.

    Args:
        buffer: with the example in it.
        span: of the example.
        where: it comes from, for errors.

    Raises:
        DataError: it is no example.
    """
    try:
        return {
            name: value
            for _, features in _fields(buffer, span, wanted=1)
            for _, entry in _fields(buffer, features, wanted=1)
            for name, value in [_feature(buffer, entry)]
            if value is not None
        }
    except (ValueError, IndexError, KeyError) as error:
        raise DataError(f"{where} holds a record that is no example: {error!r}") from None


def _feature(buffer: Buffer, entry: Span) -> tuple[str, int | Span | None]:
    """Return the name and the first value of an entry; None for floats and empty lists."""
    parts: dict[int, Span] = dict(_fields(buffer, entry))
    start, end = parts[1]
    name = buffer[start:end].decode()
    for kind, values in _fields(buffer, parts.get(2, (0, 0))):
        if kind == _BYTES_LIST:
            return name, next((own for _, own in _fields(buffer, values, wanted=1)), None)
        if kind == _INT_LIST:
            # Whole numbers stand behind each other (packed), or each in a field of its own.
            own = next((own for _, own in _fields(buffer, values, wanted=1)), None)
            return name, None if own is None or own[0] == own[1] else _varint(buffer, *own)[0]
    return name, None


def _fields(buffer: Buffer, span: Span, *, wanted: int | None = None) -> Iterator[tuple[int, Span]]:
    """Give the number of each field of a message, and where its value lies."""
    start, end = span
    while start < end:
        tag, start = _varint(buffer, start, end)
        kind = tag & 7
        if kind == _DELIMITED:
            length, start = _varint(buffer, start, end)
        elif kind == _VARINT:
            length = _varint(buffer, start, end)[1] - start
        else:
            length = {_FIXED64: 8, _FIXED32: 4}[kind]
        if start + length > end:
            raise ValueError("a field is longer than what holds it")
        if wanted in (None, tag >> 3):
            yield tag >> 3, (start, start + length)
        start += length


def _varint(buffer: Buffer, start: int, end: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, lowest first, and where it ends."""
    value = 0
    for place in range(start, min(start + 10, end)):
        value |= (buffer[place] & 0x7F) << 7 * (place - start)
        if buffer[place] < 0x80:
            return value, place + 1
    raise ValueError("a number does not end")


@functools.cache
def _crc_table() -> tuple[int, ...]:
    return tuple(_shifted(byte) for byte in range(256))


def _shifted(crc: int) -> int:
    for _ in range(8):
        crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc
