import pytest

from vitral.data.datasets.caltech import ARCHIVE, FOLDER, draw_train, read_caltech101
from vitral.data.datasets.names import list_data
from vitral.data.datasets.published import class_names
from vitral.data.datasets.table import TASKS
from vitral.errors import DataError

CAPITALS = {
    "background_google": "BACKGROUND_Google",
    "faces": "Faces",
    "faces_easy": "Faces_easy",
    "leopards": "Leopards",
    "motorbikes": "Motorbikes",
}
FOLDERS = [CAPITALS.get(name, name) for name in class_names("caltech101")]


def files(*, folders=FOLDERS, count=32):
    names = [
        f"{FOLDER}/{folder}/image_{n:04}.jpg" for folder in folders for n in range(1, count + 1)
    ]
    return {name: name.encode() for name in names}


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_thirty_of_each_folder_are_for_training(tmp_path, fill, pack, place_of, form):
    contents = {f"{FOLDER}/BACKGROUND_Google/tmp": b"stray"} | files()
    if form == "archive":
        pack(tmp_path / ARCHIVE, contents)
    else:
        fill(tmp_path, contents)
    published = read_caltech101(place_of(TASKS["caltech101"]))
    assert published.classes == class_names("caltech101")
    train, test = published.parts["train"], published.parts["test"]
    assert (len(train.labels), len(test.labels)) == (102 * 30, 102 * 2)
    assert {label: train.labels.count(label) for label in train.labels} == dict.fromkeys(
        class_names("caltech101"), 30
    )
    assert sorted([*train.keys, *test.keys]) == sorted(name[len(FOLDER) + 1 :] for name in files())
    for part in (train, test):
        assert part.store.read(7) == f"{FOLDER}/{part.keys[7]}".encode()
        assert part.labels[7] == part.keys[7].split("/")[0].lower()


def test_the_draw_does_not_depend_on_the_order_of_files():
    names_of = {folder: [f"{n}.jpg" for n in range(40)] for folder in ("b", "a")}
    reversed_names = {folder: names[::-1] for folder, names in reversed(names_of.items())}
    drawn = draw_train(names_of, where="x")
    assert drawn == draw_train(reversed_names, where="x")
    assert drawn["a"] != drawn["b"]
    assert all(len(set(names)) == 30 for names in drawn.values())


def test_the_draw_is_that_of_its_seed():
    drawn = draw_train({"a": [f"{n:02}.jpg" for n in range(40)]}, where="x")
    assert drawn["a"][:5] == ["08.jpg", "39.jpg", "14.jpg", "01.jpg", "04.jpg"]


def test_the_user_is_told_that_the_division_is_not_vtabs(tmp_path, fill):
    fill(tmp_path / "caltech101", files())
    listing = list_data("vtab-caltech101", directory=tmp_path)
    assert any("VTAB's own draw can't be made again" in note for note in listing.notes)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (FOLDERS[1:], "missing are accordion; unknown are none"),
        ([*FOLDERS, "zebra"], "missing are none; unknown are zebra"),
        (FOLDERS[4:], r"missing are accordion, airplanes, anchor, \.\.\. \(4\)"),
    ],
)
def test_other_folders_are_an_error(tmp_path, fill, place_of, folders, message):
    fill(tmp_path, files(folders=folders))
    with pytest.raises(DataError, match=message):
        read_caltech101(place_of(TASKS["caltech101"]))


def test_a_folder_of_too_few_images_is_an_error(tmp_path, fill, place_of):
    fill(tmp_path, files(count=29))
    with pytest.raises(DataError, match="BACKGROUND_Google has 29 images, wanted at least 30"):
        read_caltech101(place_of(TASKS["caltech101"]))


def test_damage_is_an_error(tmp_path, fill, place_of):
    fill(tmp_path, {ARCHIVE: b"no tar" * 200})
    with pytest.raises(DataError, match="can't be read as a tar"):
        read_caltech101(place_of(TASKS["caltech101"]))
