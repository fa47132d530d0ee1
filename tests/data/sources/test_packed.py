import json

import pytest

from vitral.data.images import open_images
from vitral.data.pack import pack
from vitral.data.pack_shard import PackSettings
from vitral.data.sources.find import list_source
from vitral.errors import DataError


@pytest.fixture
def packed(tmp_path, fill):
    fill(tmp_path / "photos", [f"{kind}/{n}.png" for kind in "ab" for n in range(10)])
    pack(open_images(tmp_path / "photos"), tmp_path / "packed", PackSettings(), name="photos")
    return tmp_path / "packed"


def test_the_findings_are_those_of_the_survey(packed):
    data = open_images(packed / ".." / "photos")
    listing = list_source(packed)
    by_name = {
        part.name(i): data.findings[part.numbers[i]]
        for part in data.splits.values()
        for i in range(len(part))
    }
    assert list(listing.findings) == [by_name[name] for name in listing.store.names]
    assert listing.findings[:2] == [listing.findings[0], listing.findings[1]]
    with pytest.raises(IndexError):
        listing.findings[len(listing.findings)]


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
    said = json.loads((packed / "pack.json").read_text())
    (packed / "pack.json").write_text(json.dumps(said | {"complete": False}))
    with pytest.raises(DataError, match="is not packed to its end"):
        list_source(packed)
