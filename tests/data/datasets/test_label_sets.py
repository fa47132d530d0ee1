import json

import numpy as np
import pytest

from vitral.data.datasets.label_sets import (
    OBJECTNET,
    REAL,
    list_objectnet,
    list_real,
    shared_classes,
)
from vitral.data.datasets.names import list_data
from vitral.data.datasets.published import DatasetFiles
from vitral.data.decode import decode_image
from vitral.errors import DataError

NAMES = [f"ILSVRC2012_val_{n:08}.JPEG" for n in range(1, 5)]


def write_real(root, fill, *, sets=([0, 7], [], [999], [3])):
    fill(root / "val", {f"n{n % 2:08}/{name}": name.encode() for n, name in enumerate(NAMES)})
    (root / "real.json").write_text(json.dumps(list(sets)))
    return DatasetFiles(root, "imagenet-real", REAL)


def test_images_without_real_labels_are_left_out_and_counted(tmp_path, fill):
    listing = list_real(write_real(tmp_path, fill))
    assert listing.labels == [("0", "7"), ("999",), ("3",)]
    assert [listing.store.read(n) for n in range(3)] == [NAMES[n].encode() for n in (0, 2, 3)]
    assert [(item.name, item.reason) for item in listing.skipped] == [
        (f"val/n00000001/{NAMES[1]}", "no ReaL label")
    ]
    assert listing.notes == ["1 images without ReaL labels are left out"]
    assert (listing.scoring, len(listing.classes)) == ("any", 1000)
    assert list_data("imagenet-real", directory=tmp_path).in_standard_order


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (([0],), "does not hold labels of 4 images"),
        (([0], [1000], [1], [2]), "holds labels that are no classes"),
        (([0], ["x"], [1], [2]), "holds labels that are no classes"),
        (([0], 7, [1], [2]), "holds labels that are no classes"),
    ],
)
def test_other_labels_are_an_error(tmp_path, fill, sets, message):
    with pytest.raises(DataError, match=message):
        list_real(write_real(tmp_path, fill, sets=sets))


def test_damaged_labels_are_an_error(tmp_path, fill):
    place = write_real(tmp_path, fill)
    (tmp_path / "real.json").write_text("[[1")
    with pytest.raises(DataError, match=r"real\.json can't be read"):
        list_real(place)


# ObjectNet

WORDS = ["tench, Tinca tinca", "analog clock", "digital clock", "bath towel", "broom"]
MAPPINGS = {
    "folder_to_objectnet_label.json": {
        "alarm_clock": "Alarm clock", "full_sized_towel": "Bath towel", "tape_measure": "Tape"
    },
    "objectnet_to_imagenet_1k.json": {
        "Alarm clock": "analog clock; digital clock", "Bath towel": "bath towel"
    },
    # ImageNet's classes 409, 530, 434, 462 and 0, by lines of the words.
    "pytorch_to_imagenet_2012_id.json": {"409": 1, "530": 2, "434": 3, "462": 4, "0": 0},
}  # fmt: skip


def write_objectnet(root, fill, picture, encode, *, changes=()):
    folder = root / "objectnet-1.0"
    mappings = {name: json.dumps(mapping).encode() for name, mapping in MAPPINGS.items()} | dict(
        changes
    )
    fill(folder / "mappings", mappings)
    fill(folder / "mappings", {"imagenet_to_label_2012_v2": "\n".join(WORDS).encode()})
    names = ["alarm_clock/1.png", "full_sized_towel/2.png", "tape_measure/3.png"]
    pictures = [encode(picture(n, size=(20, 30))) for n in range(3)]
    fill(folder / "images", dict(zip(names, pictures, strict=True)))
    return DatasetFiles(root, "objectnet", OBJECTNET)


def test_images_of_shared_classes_have_all_that_correspond(tmp_path, fill, picture, encode):
    listing = list_objectnet(write_objectnet(tmp_path, fill, picture, encode))
    assert listing.labels == [("409", "530"), ("434",)]
    assert [item.reason for item in listing.skipped] == ["of a class that ImageNet does not have"]
    assert listing.notes == ["2 classes that ImageNet has too; 2 pixels are cut off at each side"]


def test_the_frame_is_cut_off(tmp_path, fill, picture, encode):
    listing = list_objectnet(write_objectnet(tmp_path, fill, picture, encode))
    whole = decode_image(encode(picture(0, size=(20, 30))))
    np.testing.assert_array_equal(listing.store.read(0), whole[2:-2, 2:-2])
    assert listing.store.stamp(0) != listing.store.stamp(1)
    assert listing.store.blocks() is None


def test_a_damaged_image_can_not_be_read(tmp_path, fill, picture, encode):
    place = write_objectnet(tmp_path, fill, picture, encode)
    fill(tmp_path / "objectnet-1.0/images", {"alarm_clock/1.png": b"no image"})
    with pytest.raises(OSError, match="not an image"):
        list_objectnet(place).store.read(0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("objectnet_to_imagenet_1k.json", b'{"Alarm clock": "sundial"}', "do not fit each other"),
        ("pytorch_to_imagenet_2012_id.json", b'{"0": 99}', "do not fit each other"),
        ("folder_to_objectnet_label.json", b"{", "can't be read"),
    ],
)
def test_other_mappings_are_an_error(tmp_path, fill, picture, encode, name, content, message):
    place = write_objectnet(tmp_path, fill, picture, encode, changes={name: content})
    with pytest.raises(DataError, match=message):
        list_objectnet(place)


def test_a_class_number_is_found_through_the_line_of_its_words():
    found = shared_classes(
        MAPPINGS["folder_to_objectnet_label.json"],
        MAPPINGS["objectnet_to_imagenet_1k.json"],
        MAPPINGS["pytorch_to_imagenet_2012_id.json"],
        WORDS,
        where="here",
    )
    assert found == {"alarm_clock": ("409", "530"), "full_sized_towel": ("434",)}
