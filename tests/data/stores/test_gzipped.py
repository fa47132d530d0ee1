import gzip

import pytest

from vitral.data.stores.gzipped import plain_path
from vitral.errors import DataError
from vitral.files.places import cache_dir


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
