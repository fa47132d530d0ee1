import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vitral.data.sources.archives import is_archive, open_archive, plain_path
from vitral.errors import DataError
from vitral.files.layout import cache_dir

ARCHIVES = ["a.tar", "a.tar.gz", "a.tgz", "a.zip"]
FILES = {"cat/1.png": b"one", "cat/2.png": b"", "dog/1.png": bytes(range(256)) * 9}


def contents(store):
    return {name: store.read(number) for number, name in enumerate(store.names)}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_gives_its_members(tmp_path, pack, name):
    store = open_archive(pack(tmp_path / name, FILES))
    assert contents(store) == FILES
    assert len({store.stamp(number) for number in range(3)}) == 3  # a name may stand twice


def test_names_of_archives_are_known_by_their_ends():
    others = ["a.gz", "a.tar.xz", "a.rar", "tar", "a.png"]
    assert [is_archive(Path(name)) for name in [*ARCHIVES, "TRAIN.TAR", "b.Tar.Gz"]] == [True] * 6
    assert [is_archive(Path(name)) for name in others] == [False] * 5


def test_leading_dots_of_tar_members_are_left_out(tmp_path, pack):
    store = open_archive(pack(tmp_path / "a.tar", {"./cat/1.png": b"one"}))
    assert contents(store) == {"cat/1.png": b"one"}


def test_a_stored_zip_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("cat")
        archive.writestr("cat/1.png", b"one")
    assert contents(open_archive(tmp_path / "a.zip")) == {"cat/1.png": b"one"}


def test_hard_links_in_a_tar_give_what_they_link_to(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("cat/1.png")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"one"))
        link = tarfile.TarInfo("cat/2.png")
        link.type, link.linkname = tarfile.LNKTYPE, "cat/1.png"
        archive.addfile(link)
    assert contents(open_archive(tmp_path / "a.tar")) == {"cat/1.png": b"one", "cat/2.png": b"one"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_other_links_in_a_tar_are_listed_and_say_why_they_are_not_read(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("cat/2.png")
        link.type, link.linkname = kind, "elsewhere/1.png"
        archive.addfile(link)
    store = open_archive(tmp_path / "a.tar")
    assert list(store.names) == ["cat/2.png"]
    with pytest.raises(OSError, match="link to elsewhere/1.png"):
        store.read(0)


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_damaged_archive_is_a_data_error_that_names_it(tmp_path, name):
    (tmp_path / name).write_bytes(b"no archive at all")
    with pytest.raises(DataError, match=rf"{name} can't be read"):
        open_archive(tmp_path / name)


@pytest.mark.parametrize("name", ARCHIVES)
def test_half_an_archive_is_a_data_error(tmp_path, pack, name):
    noise = np.random.default_rng(0).bytes(5000)
    path = pack(tmp_path / name, {"cat/1.png": noise, "cat/2.png": noise[::-1]})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 700])
    with pytest.raises(DataError, match=name):
        open_archive(path)


def test_damage_between_the_members_of_a_tar_loses_none_silently(tmp_path, pack):
    path = pack(tmp_path / "a.tar", FILES)
    content = bytearray(path.read_bytes())
    content[1024 + 100 : 1024 + 156] = b"x" * 56  # within the second member's header
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar can't be read as a tar: .*after cat/1\.png"):
        open_archive(path)


def test_damage_inside_a_compressed_tar_is_a_data_error(tmp_path, pack):
    noise = np.random.default_rng(0).bytes(3000)
    path = pack(tmp_path / "a.tar.gz", {"cat/1.png": noise * 3})
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar\.gz can't be unpacked"):
        open_archive(path)


def test_a_damaged_member_of_a_zip_is_an_os_error(tmp_path, pack):
    path = pack(tmp_path / "a.zip", {"cat/1.png": bytes(range(256)) * 20})
    content = bytearray(path.read_bytes())
    content[39 + 10 : 39 + 60] = b"\xff" * 50
    path.write_bytes(content)
    with pytest.raises(OSError, match="a damaged member"):
        open_archive(path).read(0)


def test_an_encrypted_member_of_a_zip_is_an_os_error(tmp_path, pack):
    path = pack(tmp_path / "a.zip", {"cat/1.png": b"one"})
    content = path.read_bytes()
    directory = content.index(b"PK\1\2")
    path.write_bytes(content[: directory + 8] + b"\1" + content[directory + 9 :])
    with pytest.raises(OSError, match="encrypted"):
        open_archive(path).read(0)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_of_a_zip_in_another_compression_is_an_os_error(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("cat/1.png", b"one" * 100)
    with pytest.raises(OSError, match="only deflate is read"):
        open_archive(tmp_path / "a.zip").read(0)


def test_a_compressed_tar_is_unpacked_once(tmp_path, pack, monkeypatch):
    monkeypatch.setenv("VITRAL_CACHE_DIR", str(tmp_path / "cache"))
    path = pack(tmp_path / "a.tar.gz", FILES)
    open_archive(path)
    (unpacked,) = (cache_dir() / "archives").iterdir()
    before = unpacked.stat().st_mtime_ns
    assert contents(open_archive(path)) == FILES
    assert unpacked.stat().st_mtime_ns == before


def test_a_changed_compressed_tar_is_unpacked_again(tmp_path, pack):
    open_archive(pack(tmp_path / "a.tar.gz", FILES))
    os.utime(pack(tmp_path / "a.tar.gz", {"cat/9.png": b"nine"}), ns=(1, 1))
    assert contents(open_archive(tmp_path / "a.tar.gz")) == {"cat/9.png": b"nine"}


def test_a_plain_tar_with_the_name_of_a_compressed_one_is_read(tmp_path, pack):
    pack(tmp_path / "a.tar", FILES).rename(tmp_path / "a.tar.gz")
    assert contents(open_archive(tmp_path / "a.tar.gz")) == FILES


def test_a_compressed_tar_with_the_name_of_a_plain_one_is_read(tmp_path, pack):
    pack(tmp_path / "a.tar.gz", FILES).rename(tmp_path / "a.tar")
    assert gzip.decompress((tmp_path / "a.tar").read_bytes())
    assert contents(open_archive(tmp_path / "a.tar")) == FILES


def test_a_stored_zip_member_with_a_flipped_bit_is_damaged(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("cat/1.bin", b"0123456789" * 20)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[100] ^= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(OSError, match="its checksum is not the one in the zip"):
        open_archive(tmp_path / "a.zip").read(0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAL_CACHE_DIR", str(tmp_path / "cache"))


def test_a_file_is_unpacked_once(tmp_path):
    path = tmp_path / "a.h5.gz"
    path.write_bytes(gzip.compress(b"content"))
    unpacked = plain_path(path, suffix=".h5")
    assert unpacked.read_bytes() == b"content"
    assert unpacked.suffix == ".h5"
    unpacked.write_bytes(b"kept")
    assert plain_path(path, suffix=".h5").read_bytes() == b"kept"


def test_a_file_that_is_not_compressed_is_left_where_it_is(tmp_path):
    (tmp_path / "a.h5.gz").write_bytes(b"content")
    assert plain_path(tmp_path / "a.h5.gz", suffix=".h5") == tmp_path / "a.h5.gz"


# Without the clock's time in its header, and so in the test's name.
WHOLE = gzip.compress(bytes(1000), mtime=0)


@pytest.mark.parametrize(
    "damaged", [WHOLE[:-9], WHOLE[:-8] + bytes(8)], ids=["cut short", "other checksum"]
)
def test_damage_is_an_error_that_leaves_nothing(tmp_path, damaged):
    (tmp_path / "a.h5.gz").write_bytes(damaged)
    with pytest.raises(DataError, match=r"a\.h5\.gz can't be unpacked"):
        plain_path(tmp_path / "a.h5.gz", suffix=".h5")
    assert list((cache_dir() / "archives").iterdir()) == []
