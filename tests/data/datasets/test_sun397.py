import pytest

from vitral.data.datasets.names import list_data
from vitral.data.datasets.sun397 import ARCHIVE, FOLDER, LISTS, read_sun397
from vitral.data.datasets.table import TASKS
from vitral.errors import DataError, RequestError

KEYS = {
    "train": ["/a/abbey/sun_b.jpg", "/a/apse/indoor/sun_a.jpg", "/z/zoo/sun_c.jpg"],
    "validation": ["/z/zoo/sun_d.jpg"],
    "test": ["/b/bar/sun_f.jpg", "/a/abbey/sun_e.jpg"],
}
IMAGES = {f"{FOLDER}{key}": key.encode() for keys in KEYS.values() for key in keys}
UNLISTED = f"{FOLDER}/c/church/outdoor/sun_bhenjvsvrtumjuri.jpg"


@pytest.fixture
def lists(tmp_path, fill):
    fill(tmp_path, {LISTS[split]: "\n".join(keys).encode() + b"\n" for split, keys in KEYS.items()})


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_images_are_divided_by_the_lists(tmp_path, fill, pack, place_of, lists, form):
    contents = IMAGES | {UNLISTED: b"x", f"{FOLDER}/ClassName.txt": b"/a/abbey"}
    if form == "archive":
        pack(tmp_path / ARCHIVE, contents)
    else:
        fill(tmp_path, contents)
    published = read_sun397(place_of(TASKS["sun397"]))
    assert published.classes == ("/a/abbey", "/a/apse/indoor", "/b/bar", "/z/zoo")
    assert {split: part.keys for split, part in published.parts.items()} == KEYS
    assert published.parts["train"].labels == ["/a/abbey", "/a/apse/indoor", "/z/zoo"]
    test = published.parts["test"]
    assert [test.store.read(n) for n in (0, 1)] == [b"/b/bar/sun_f.jpg", b"/a/abbey/sun_e.jpg"]


def test_a_listed_image_that_is_missing_can_not_be_read(tmp_path, fill, place_of, lists):
    fill(tmp_path, {name: content for name, content in IMAGES.items() if "sun_a" not in name})
    published = read_sun397(place_of(TASKS["sun397"]))
    assert len(published.parts["train"].labels) == 3
    with pytest.raises(FileNotFoundError):
        published.parts["train"].store.read(1)


def test_the_user_is_told_that_images_are_not_shrunk(tmp_path, fill, lists):
    fill(tmp_path, IMAGES)
    notes = list_data("vtab-sun397", directory=tmp_path).notes
    assert any("shrinks those of more than 120,000 pixels" in note for note in notes)


def test_the_lists_are_asked_for(tmp_path, fill, place_of):
    fill(tmp_path, IMAGES)
    with pytest.raises(
        RequestError, match=r"sun397_tfds_va\.txt from https://github\.com/tensorflow"
    ):
        place_of(TASKS["sun397"])


@pytest.mark.parametrize("line", ["a/abbey/sun_a.jpg", "/sun_a.jpg", "/a/abbey", "/a/abbey/x.png"])
def test_a_line_that_names_no_image_is_an_error(tmp_path, fill, place_of, lists, line):
    fill(tmp_path, IMAGES | {LISTS["test"]: line.encode()})
    with pytest.raises(DataError, match="is no image of the form /LETTER/CLASS/NAME.jpg"):
        read_sun397(place_of(TASKS["sun397"]))


def test_a_damaged_list_is_an_error(tmp_path, fill, place_of, lists):
    fill(tmp_path, IMAGES | {LISTS["test"]: b"\xff\xfe\x00"})
    with pytest.raises(DataError, match=r"sun397_tfds_te\.txt can't be read"):
        read_sun397(place_of(TASKS["sun397"]))


def test_a_damaged_archive_is_an_error(tmp_path, fill, place_of, lists):
    fill(tmp_path, {ARCHIVE: b"\x1f\x8bno gzip"})
    with pytest.raises(DataError, match="can't be unpacked"):
        read_sun397(place_of(TASKS["sun397"]))
