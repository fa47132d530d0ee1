import io
import os
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from vitral.data import scan as survey_module
from vitral.data.check.checked import LIKENESS, RADIUS
from vitral.data.decode import decode_image
from vitral.data.scan import (
    fits_channels,
    inspect_file,
    likeness,
    perceptual_hash,
    survey,
    thumbnail,
)
from vitral.data.sources.find import list_source
from vitral.data.sources.listing import FileInfo
from vitral.errors import DataError
from vitral.files.layout import cache_dir

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
    file_infos = survey(listed(), channels=3)
    assert [file_info.format for file_info in file_infos] == ["PNG", "PNG", "PNG"]
    assert [(f.height, f.width, f.mode) for f in file_infos] == [(10, 12, "RGB")] * 3
    assert len({file_info.digest for file_info in file_infos}) == 3
    assert {len(file_info.digest) for file_info in file_infos} == {32}
    assert not any(file_info.problem or file_info.damaged for file_info in file_infos)


def test_a_second_pass_reads_no_file_again(listed):
    first, second = listed(), listed()
    file_infos = survey(first, channels=3)
    assert sorted(first.store.reads) == [0, 1, 2]
    assert survey(second, channels=3) == file_infos
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
    assert [file_info.problem for file_info in survey(listed(), channels=3)] == [""] * 3


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
    problems = {file_info.problem for file_info in survey(listing, channels=3)}
    assert problems == {"can't be read: Permission denied"}
    listing.store.fails = False
    assert {file_info.problem for file_info in survey(listing, channels=3)} == {""}


def test_what_is_damaged_stays_so_without_another_look(listed, tmp_path, fill):
    fill(tmp_path / "data", {"cat/3.png": b"\x89PNG\r\n\x1a\n", "cat/4.png": b"\0\0\0 ftypheic"})
    expected = survey(listed(), channels=3)
    assert [file_info.damaged for file_info in expected[:4]] == [False, False, True, False]
    assert expected[3].problem == "HEIC is not read yet"
    listing = listed()
    assert survey(listing, channels=3) == expected
    assert listing.store.reads == []


def test_progress_is_reported_to_the_end(listed):
    calls = []
    survey(listed(), channels=3, report_progress=lambda *done: calls.append(done))
    assert calls[-1] == (3, 3)


def test_above_the_limit_nothing_is_read(listed, monkeypatch):
    monkeypatch.setattr(survey_module, "MAX_FILES_READ", 2)
    listing = listed()
    assert survey(listing, channels=3) == [FileInfo()] * 3
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
    file_info = inspect_file(OneFile(content), 0, channels=3)
    assert (file_info.problem, file_info.damaged) == (problem, damaged)


def test_equal_pixels_have_equal_digests_wherever_they_lie():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    first = inspect_file(OneFile(pixels), 0, channels=3)
    second = inspect_file(OneFile(pixels[:, ::-1].copy()[:, ::-1]), 0, channels=3)
    assert (first.format, first.mode, first.height, first.width) == ("array", "RGB", 2, 4)
    assert first == second


def test_only_grey_and_rgb_turn_into_each_other():
    fitting = {(channels, wanted) for channels in range(1, 6) for wanted in range(1, 6)
               if fits_channels(channels, wanted)}  # fmt: skip
    assert fitting == {(n, n) for n in range(1, 6)} | {(1, 3), (3, 1)}


SETS = ["dtd10/train.tar", "flowers102/test.tar", "imagenet_sample/images.tar", "rsscn7/train.tar"]


@pytest.fixture(scope="module")
def photos(shared):
    """Real images, forty of each of four sets."""
    found = []
    for name in SETS:
        with tarfile.open(shared / "data" / name) as tar:
            members = [member for member in tar if member.isfile()][:40]
            found += [decode_image(tar.extractfile(member).read()) for member in members]
    return found


def bits_between(first, second):
    return (int(first, 16) ^ int(second, 16)).bit_count()


def _compressed(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(file)


CHANGES = {
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "twice the size": lambda image: image.resize((image.width * 2, image.height * 2)),
    "compressed again": _compressed,
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "of less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_looks_the_same_is_found(photos, change):
    found = 0
    for pixels in photos:
        changed = np.asarray(CHANGES[change](Image.fromarray(pixels)))
        near = bits_between(perceptual_hash(pixels), perceptual_hash(changed)) <= RADIUS
        found += near and likeness(thumbnail(pixels), thumbnail(changed)) >= LIKENESS
    assert found >= 0.95 * len(photos)


def test_no_two_photographs_look_the_same(photos):
    hashes = [perceptual_hash(pixels) for pixels in photos]
    pairs = [(i, j) for i in range(len(hashes)) for j in range(i)]
    near = [(i, j) for i, j in pairs if bits_between(hashes[i], hashes[j]) <= RADIUS]
    alike = [likeness(thumbnail(photos[i]), thumbnail(photos[j])) for i, j in near]
    assert not any(value >= LIKENESS for value in alike)


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 2, 3, 4, 7]))
def test_an_image_of_any_shape_has_a_hash(height, width, channels):
    random = np.random.default_rng(height * 71 + width)
    pixels = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
    is_flat = np.unique(thumbnail(pixels)).size == 1
    assert len(perceptual_hash(pixels)) == (0 if is_flat else 16)
    assert thumbnail(pixels).shape == (32, 32)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_values_of_any_type_look_the_same(photos, dtype):
    for pixels in photos[:10]:
        grey = np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
        deep = grey.astype(dtype) * dtype(3) + dtype(7)
        assert bits_between(perceptual_hash(grey), perceptual_hash(deep)) <= 2


def test_one_value_looks_like_nothing():
    assert perceptual_hash(np.full((9, 9, 3), 200, np.uint8)) == ""
    flat = np.zeros((32, 32), np.float32)
    assert likeness(flat, np.eye(32, dtype=np.float32)) == 0


def test_likeness_is_the_correlation():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 32, 32)).astype(np.float32)
    assert likeness(one, 3 * one + 5) == pytest.approx(1)
    assert likeness(one, -one) == pytest.approx(-1)
    expected = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    assert likeness(one, other) == pytest.approx(expected, abs=1e-5)
