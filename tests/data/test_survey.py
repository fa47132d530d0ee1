import os
from dataclasses import replace

import numpy as np
import pytest

from vitral.data import survey as survey_module
from vitral.data.finding import Finding
from vitral.data.sources.find import list_source
from vitral.data.survey import fits_channels, look_into, survey
from vitral.errors import DataError
from vitral.files.places import cache_dir

FILES = ["cat/1.png", "cat/2.png", "dog/1.jpg"]


@pytest.fixture
def listed(tmp_path, fill, counting, monkeypatch):
    """A function that lists a folder anew, with a store that counts what is read."""
    monkeypatch.setenv("VITRAL_CACHE_DIR", str(tmp_path / "cache"))
    fill(tmp_path / "data", FILES)

    def list_anew():
        listing = list_source(tmp_path / "data")
        return replace(listing, store=counting(listing.store))

    return list_anew


def test_a_pass_finds_what_each_file_is(listed):
    findings = survey(listed(), channels=3)
    assert [finding.format for finding in findings] == ["PNG", "PNG", "PNG"]
    assert [(f.height, f.width, f.mode) for f in findings] == [(10, 12, "RGB")] * 3
    assert len({finding.digest for finding in findings}) == 3
    assert {len(finding.digest) for finding in findings} == {32}
    assert not any(finding.problem or finding.damaged for finding in findings)


def test_a_second_pass_reads_no_file_again(listed):
    first, second = listed(), listed()
    findings = survey(first, channels=3)
    assert sorted(first.store.reads) == [0, 1, 2]
    assert survey(second, channels=3) == findings
    assert second.store.reads == []


def test_a_changed_file_is_read_again(listed, tmp_path, fill):
    before = survey(listed(), channels=3)
    fill(tmp_path / "data", {"cat/2.png": (tmp_path / "data/cat/1.png").read_bytes()})
    os.utime(tmp_path / "data/cat/2.png", ns=(7, 7))
    listing = listed()
    after = survey(listing, channels=3)
    assert listing.store.reads == [1]
    assert after[1] == replace(before[0])
    assert (after[0], after[2]) == (before[0], before[2])


def test_an_added_file_alone_is_read(listed, tmp_path, fill):
    survey(listed(), channels=3)
    fill(tmp_path / "data", ["cat/3.png"])
    listing = listed()
    survey(listing, channels=3)
    assert [listing.store.names[number] for number in listing.store.reads] == ["cat/3.png"]


def test_each_number_of_channels_has_its_own_findings(listed):
    survey(listed(), channels=3)
    listing = listed()
    survey(listing, channels=1)
    assert sorted(listing.store.reads) == [0, 1, 2]


def test_another_version_looks_again(listed, monkeypatch):
    survey(listed(), channels=3)
    monkeypatch.setattr(survey_module, "__version__", "another")
    listing = listed()
    survey(listing, channels=3)
    assert sorted(listing.store.reads) == [0, 1, 2]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"no rows\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"{}\n",
        b'{"name": "cat/1.png", "stamp": "1-1", "finding": {"unknown": 1}}\n',
        b'{"name": "cat/1.png", "stamp": "1-1", "finding": 3}\n',
    ],
)
def test_a_damaged_cache_is_made_again(listed, damage):
    expected = survey(listed(), channels=3)
    (path,) = (cache_dir() / "survey").iterdir()
    path.write_bytes(damage)
    assert survey(listed(), channels=3) == expected
    listing = listed()
    assert survey(listing, channels=3) == expected
    assert listing.store.reads == []


def test_a_cache_cut_short_keeps_its_whole_rows(listed):
    expected = survey(listed(), channels=3)
    (path,) = (cache_dir() / "survey").iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    listing = listed()
    assert survey(listing, channels=3) == expected
    assert listing.store.reads == [2]


def test_no_place_for_a_cache_is_no_problem(listed, tmp_path, monkeypatch):
    (tmp_path / "taken").write_bytes(b"")
    monkeypatch.setenv("VITRAL_CACHE_DIR", str(tmp_path / "taken"))
    assert [finding.problem for finding in survey(listed(), channels=3)] == [""] * 3


class FailingOnce:
    """A store whose disk fails at the first reading."""

    def __init__(self, store):
        self.store, self.names, self.fails = store, store.names, True

    def read(self, number):
        if self.fails:
            raise PermissionError(13, "Permission denied")
        return self.store.read(number)

    def stamp(self, number):
        return self.store.stamp(number)

    def blocks(self):
        return self.store.blocks()


def test_what_could_not_be_read_is_tried_again(listed):
    listing = listed()
    listing = replace(listing, store=FailingOnce(listing.store))
    problems = {finding.problem for finding in survey(listing, channels=3)}
    assert problems == {"can't be read: Permission denied"}
    listing.store.fails = False
    assert {finding.problem for finding in survey(listing, channels=3)} == {""}


def test_what_is_damaged_stays_so_without_another_look(listed, tmp_path, fill):
    fill(tmp_path / "data", {"cat/3.png": b"\x89PNG\r\n\x1a\n", "cat/4.png": b"\0\0\0 ftypheic"})
    expected = survey(listed(), channels=3)
    assert [finding.damaged for finding in expected[:4]] == [False, False, True, False]
    assert expected[3].problem == "HEIC is not read yet"
    listing = listed()
    assert survey(listing, channels=3) == expected
    assert listing.store.reads == []


def test_progress_is_reported_to_the_end(listed):
    told = []
    survey(listed(), channels=3, report_progress=lambda *done: told.append(done))
    assert told[-1] == (3, 3)


def test_above_the_limit_nothing_is_read(listed, monkeypatch):
    monkeypatch.setattr(survey_module, "MAX_FILES_READ", 2)
    listing = listed()
    assert survey(listing, channels=3) == [Finding()] * 3
    assert listing.store.reads == []


class OneFile:
    """A store of one content, or of what reading it raises."""

    names = ("it",)

    def __init__(self, content):
        self.content = content

    def read(self, number):
        if isinstance(self.content, Exception):
            raise self.content
        return self.content

    def stamp(self, number):
        return None

    def blocks(self):
        return None


@pytest.mark.parametrize(
    ("content", "problem", "damaged"),
    [
        (FileNotFoundError(2, "No such file"), "there is no such file", True),
        (OSError(5, "Input/output error"), "can't be read: Input/output error", True),
        (OSError("a damaged member"), "can't be read: a damaged member", True),
        (DataError("floats from 0 to 59"), "floats from 0 to 59", True),
        (b"", "an empty file", True),
        (b"text", "not an image", True),
        (b"\0\0\0 ftypheic", "HEIC is not read yet", False),
        (np.zeros((2, 2, 4), np.uint8), "4 channels for a model of 3", False),
    ],
)
def test_a_problem_is_found_and_named(content, problem, damaged):
    finding = look_into(OneFile(content), 0, channels=3)
    assert (finding.problem, finding.damaged) == (problem, damaged)


def test_equal_pixels_have_equal_digests_wherever_they_lie():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    first = look_into(OneFile(pixels), 0, channels=3)
    second = look_into(OneFile(pixels[:, ::-1].copy()[:, ::-1]), 0, channels=3)
    assert (first.format, first.mode, first.height, first.width) == ("array", "RGB", 2, 4)
    assert first == second


def test_only_grey_and_rgb_turn_into_each_other():
    fitting = {(own, wanted) for own in range(1, 6) for wanted in range(1, 6)
               if fits_channels(own, wanted)}  # fmt: skip
    assert fitting == {(n, n) for n in range(1, 6)} | {(1, 3), (3, 1)}
