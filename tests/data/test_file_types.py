import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.data.file_types import IMAGE_SUFFIXES, READ_KINDS, SUFFIXES, is_read, kind_of


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_the_start_of_a_file_tells_its_kind(picture, encode, kind):
    assert kind_of(encode(picture(size=(16, 16)), kind)[:32]) == kind


@given(st.binary(max_size=32))
def test_telling_the_kind_never_fails(start):
    kind = kind_of(start)
    assert kind is None or kind.strip()


def test_every_kind_that_is_read_has_endings_of_its_own():
    assert set(READ_KINDS) == set(SUFFIXES)
    assert len(IMAGE_SUFFIXES) == sum(map(len, SUFFIXES.values()))


def test_avif_is_read_where_pillow_can(monkeypatch):
    monkeypatch.setattr("vitral.data.file_types.features.check", lambda name: False)
    assert not is_read("AVIF")
    assert is_read("GIF")
    assert not is_read("HEIC")
