import gzip
import struct

import numpy as np
import pytest

from vitral.data.datasets.smallnorb import (
    FILES,
    azimuth_classes,
    elevation_classes,
    read_smallnorb_azimuth,
    read_smallnorb_elevation,
)
from vitral.data.datasets.table import TASKS
from vitral.errors import DataError

TYPES = {"|u1": 0x1E3D4C55, "<i4": 0x1E3D4C54}
NUM_TRAIN, NUM_TEST = 300, 3  # more than one block, and less


def norb(array, *, magic=None, shape=None):
    """The publisher's bytes of an array: type, dimensions (three at least), values."""
    shape = array.shape if shape is None else shape
    dims = [*shape, 1, 1, 1][: max(3, len(shape))]
    head = struct.pack(f"<{2 + len(dims)}i", magic or TYPES[array.dtype.str], len(shape), *dims)
    return head + array.tobytes()


def info_rows(count):
    number = np.arange(count)
    return np.stack([number % 10, number % 9, number % 18 * 2, number % 6], 1).astype("<i4")


@pytest.fixture
def arrays(random):
    """The arrays of all files by split and kind."""
    return {
        (split, kind): random.integers(0, 256, (count, 2, 96, 96), dtype=np.uint8)
        if kind == "dat"
        else info_rows(count)
        for split, count in (("train", NUM_TRAIN), ("test", NUM_TEST))
        for kind in ("dat", "info")
    }


def write(fill, tmp_path, contents, *, packed=True):
    """Write bytes by (split, kind), compressed or as a browser leaves them."""
    names = {key: FILES[key[0]].format(key[1]) for key in contents}
    files = {
        names[key] if packed else names[key].removesuffix(".gz"): (
            gzip.compress(content, 1) if packed else content
        )
        for key, content in contents.items()
    }
    fill(tmp_path, files)


def encoded(arrays):
    return {key: norb(array) for key, array in arrays.items()}


@pytest.mark.parametrize("packed", [True, False])
def test_images_of_the_first_camera_are_read(tmp_path, fill, place_of, arrays, read_part, packed):
    write(fill, tmp_path, encoded(arrays), packed=packed)
    published = read_smallnorb_azimuth(place_of(TASKS["smallnorb-azim"]))
    assert list(published.parts) == ["train", "test"]
    for split, part in published.parts.items():
        grey = arrays[split, "dat"][:, 0]
        np.testing.assert_array_equal(read_part(part), np.stack([grey] * 3, -1))
        assert part.keys == [str(n) for n in range(len(grey))]


def test_files_that_a_browser_unpacked_under_their_names_are_read(tmp_path, fill, place_of, arrays):
    fill(
        tmp_path,
        {FILES[key[0]].format(key[1]): content for key, content in encoded(arrays).items()},
    )
    assert len(read_smallnorb_azimuth(place_of(TASKS["smallnorb-azim"])).classes) == 18


@pytest.mark.parametrize(
    ("name", "read", "column", "divisor", "first", "last"),
    [
        ("smallnorb-azim", read_smallnorb_azimuth, 2, 2, "azimuth 0", "azimuth 340"),
        ("smallnorb-elev", read_smallnorb_elevation, 1, 1, "elevation 30", "elevation 70"),
    ],
)
def test_labels_are_those_of_the_task(
    tmp_path, fill, place_of, arrays, name, read, column, divisor, first, last
):
    write(fill, tmp_path, encoded(arrays))
    published = read(place_of(TASKS[name]))
    assert (published.classes[0], published.classes[-1]) == (first, last)
    assert len(published.classes) == TASKS[name].num_classes
    wanted = arrays["train", "info"][:, column] // divisor
    assert published.parts["train"].labels == [published.classes[n] for n in wanted]


def test_classes_of_azimuths_and_elevations():
    azimuths = np.array([[0, 0, azimuth, 0] for azimuth in (-2, 0, 1, 2, 17, 34, 35, 36)])
    assert azimuth_classes(azimuths).tolist() == [-1, 0, -1, 1, -1, 17, -1, -1]
    elevations = np.array([[0, elevation, 0, 0] for elevation in (-1, 0, 8, 9)])
    assert elevation_classes(elevations).tolist() == [-1, 0, 8, -1]


INFO, PAIRS = info_rows(NUM_TEST), np.zeros((NUM_TEST, 2, 96, 96), np.uint8)
OTHER_ROW = np.array([[4, 8, 0, 5], [4, 8, 36, 5], [4, 8, 34, 5]], "<i4")


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("info", b"", r"info\.mat\.gz is cut short: 0 of 20 bytes"),
        ("dat", norb(PAIRS)[:23], r"dat\.mat\.gz is cut short: 23 of 24 bytes"),
        ("dat", norb(PAIRS)[:-1], "is cut short: 55,295 of 55,296 bytes; download it again"),
        ("info", norb(INFO)[:-1], "is cut short: 47 of 48 bytes"),
        ("dat", norb(PAIRS) + b"0", "goes on after its 55,296 bytes of values: download it again"),
        ("info", norb(INFO) + b"0", "goes on after its 48 bytes of values"),
        ("dat", norb(PAIRS, magic=0x1E3D4C54), "begins with 0x1e3d4c54, wanted 0x1e3d4c55: it is"),
        ("info", norb(INFO, magic=0x1E3D4C55), "begins with 0x1e3d4c55, wanted 0x1e3d4c54: it is"),
        ("info", b"\xff" * 40, "begins with 0xffffffff, wanted"),
        ("info", norb(INFO, shape=(12,)), "holds an array of 1 dimensions, wanted 2"),
        ("info", norb(INFO, shape=(4, 3)), r"numbers of shape \(4, 3\), wanted \(N, 4\)"),
        ("info", norb(INFO, shape=(-1, 4)), r"numbers of shape \(-1, 4\), wanted \(N, 4\)"),
        ("dat", norb(PAIRS[:2]), r"images of shape \(2, 2, 96, 96\), wanted \(3, 2, 96, 96\)"),
        ("info", norb(OTHER_ROW), r"row \[4, 8, 36, 5\] is of none of the 18 classes from azimuth"),
    ],
)
def test_another_file_is_an_error(tmp_path, fill, place_of, arrays, kind, content, message):
    write(fill, tmp_path, encoded(arrays) | {("test", kind): content})
    with pytest.raises(DataError, match=message):
        read_smallnorb_azimuth(place_of(TASKS["smallnorb-azim"]))


@pytest.mark.parametrize("damage", ["cut", "changed", "checksum"])
@pytest.mark.parametrize("kind", ["dat", "info"])
def test_damage_of_the_compressed_file_is_an_error(tmp_path, fill, place_of, arrays, kind, damage):
    contents = encoded(arrays)
    write(fill, tmp_path, contents)
    path = tmp_path / FILES["train"].format(kind)
    packed = bytearray(path.read_bytes())
    damaged = {
        "cut": packed[: len(packed) // 2],
        "changed": packed[:10] + b"\xff" * 50 + packed[60:],
        "checksum": packed[:-8] + b"\0\0\0\0" + packed[-4:],
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=r"\.mat\.gz can't be read: .*; download it again"):
        read_smallnorb_azimuth(place_of(TASKS["smallnorb-azim"]))
