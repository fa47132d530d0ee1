import json

import numpy as np
import pytest

from vitral.data.datasets.clevr import (
    COUNTS,
    DISTANCES,
    count_class,
    distance_class,
    read_clevr_count,
    read_clevr_distance,
)
from vitral.data.datasets.table import TASKS
from vitral.errors import DataError

SCENES = {  # by split: the objects' distances, by image
    "train": [[9.1, 8.2, 11.0], [10.5] * 10, [8.0, 12.0, 9.0, 8.5]],
    "val": [[9.6, 9.7, 9.8, 12.5, 9.9], [7.5, 8.0, 9.0]],
}


def scene(split, number, depths):
    thing = {"3d_coords": [0.5, 1.5, 0.7], "rotation": 12.5, "size": "large", "color": "red",
             "material": "metal", "shape": "cube"}  # fmt: skip
    return {
        "image_index": number,
        "image_filename": f"CLEVR_{split}_{number:06}.png",
        "objects": [{**thing, "pixel_coords": [240, 160, depth]} for depth in depths],
        "relationships": {"left": [[] for _ in depths]},
        "directions": {"left": [-0.6, -0.7, 0.0]},
        "split": split,
    }


def scenes_file(split, scenes):
    records = [scene(split, number, depths) for number, depths in enumerate(scenes)]
    return json.dumps({"info": {"version": "1.0"}, "scenes": records[::-1]}).encode()


def files(**changed):
    contents = {"CLEVR_v1.0/README.txt": b"read me"}
    for split, scenes in SCENES.items():
        contents[f"CLEVR_v1.0/scenes/CLEVR_{split}_scenes.json"] = scenes_file(split, scenes)
        for number in range(len(scenes)):
            name = f"CLEVR_{split}_{number:06}.png"
            contents[f"CLEVR_v1.0/images/{split}/{name}"] = name.encode()
    contents["CLEVR_v1.0/images/test/CLEVR_test_000000.png"] = b"without a scene"
    return contents | {
        f"CLEVR_v1.0/scenes/CLEVR_{split}_scenes.json": content
        for split, content in changed.items()
    }


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_images_follow_the_scenes(tmp_path, fill, pack, place_of, form):
    if form == "archive":
        pack(tmp_path / "CLEVR_v1.0.zip", files())
    else:
        fill(tmp_path, files())
    published = read_clevr_count(place_of(TASKS["clevr-count"]))
    assert published.classes == COUNTS
    assert len(COUNTS) == TASKS["clevr-count"].num_classes
    train, validation = published.parts["train"], published.parts["validation"]
    assert train.keys == [f"CLEVR_train_{number:06}.png" for number in range(3)]
    assert train.labels == ["3 objects", "10 objects", "4 objects"]
    assert validation.labels == ["5 objects", "3 objects"]
    assert validation.store.read(1) == b"CLEVR_val_000001.png"


def test_labels_of_the_distance_are_those_of_the_nearest_object(tmp_path, pack, place_of):
    pack(tmp_path / "CLEVR_v1.0.zip", files())
    published = read_clevr_distance(place_of(TASKS["clevr-dist"]))
    assert published.classes == DISTANCES
    assert len(DISTANCES) == TASKS["clevr-dist"].num_classes
    assert published.parts["train"].labels == [
        "nearest 8 to 8.5", "nearest over 10", "nearest up to 8"
    ]  # fmt: skip
    assert published.parts["validation"].labels == ["nearest 9.5 to 10", "nearest up to 8"]


def test_the_validation_images_are_the_test():
    for name in ("clevr-count", "clevr-dist"):
        assert TASKS[name].test == ("validation", 0, 100)
        assert (TASKS[name].train, TASKS[name].validation) == (("train", 0, 90), ("train", 90, 100))


def test_three_objects_are_the_first_class():
    assert [count_class([9.0] * number) for number in (2, 3, 10, 11)] == [-1, 0, 7, 8]


@pytest.mark.parametrize(
    ("threshold", "below"), [(8.0, 0), (8.5, 1), (9.0, 2), (9.5, 3), (10.0, 4)]
)
def test_a_distance_at_a_threshold_is_of_the_class_below(threshold, below):
    at = np.float32(threshold)
    before, after = np.nextafter(at, np.float32(0)), np.nextafter(at, np.float32(99))
    found = [distance_class([12.0, float(value)]) for value in (before, at, after)]
    assert found == [below, below, below + 1]
    # Of float64, but the same number in float32.
    assert distance_class([threshold + 1e-9]) == below


@pytest.mark.parametrize(
    ("distance", "label"),
    [(-1.0, -1), (0.0, -1), (0.1, 0), (100.0, 5), (100.1, 6), (np.inf, 6), (np.nan, -1)],
)
def test_a_distance_beyond_the_thresholds_is_of_no_class(distance, label):
    assert distance_class([distance]) == label


def test_a_scene_without_objects_has_no_distance():
    assert distance_class([]) == 6


@pytest.mark.parametrize(
    ("scenes", "message"),
    [
        ([[9.0]], r"CLEVR_val_000000.png has objects at distances \[9.0\], which is of none of"),
        ([[9.0] * 11], "none of the 8 classes from '3 objects' to '10 objects'"),
    ],
)
def test_another_number_of_objects_is_an_error(tmp_path, fill, place_of, scenes, message):
    fill(tmp_path, files(val=scenes_file("val", scenes)))
    with pytest.raises(DataError, match=message):
        read_clevr_count(place_of(TASKS["clevr-count"]))


def test_an_object_behind_the_camera_is_an_error(tmp_path, fill, place_of):
    fill(tmp_path, files(val=scenes_file("val", [[9.0, -2.0, 9.0]])))
    with pytest.raises(DataError, match=r"\[9.0, -2.0, 9.0\], which is of none of the 6 classes"):
        read_clevr_distance(place_of(TASKS["clevr-dist"]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"scenes": 3}',
        b'{"scenes": [3]}',
        b'{"scenes": [{"image_filename": "a.png"}]}',
        b'{"scenes": [{"image_filename": "a.png", "objects": [{"pixel_coords": [1, 2]}]}]}',
        b'{"scenes": [{"image_filename": "a.png", "objects": [{"pixel_coords": [1, 2, "x"]}]}]}',
        b'{"scenes": [{"image_filename": "a.png", "objects": [{"pixel_coords": [1, 2, 1%s]}]}]}'
        % (b"0" * 400),
    ],
)
def test_a_file_of_no_scenes_is_an_error(tmp_path, fill, place_of, content):
    fill(tmp_path, files(train=content))
    with pytest.raises(DataError, match=r"CLEVR_train_scenes.json states no scenes of images and"):
        read_clevr_count(place_of(TASKS["clevr-count"]))


def test_a_missing_file_of_scenes_is_an_error(tmp_path, fill, place_of):
    contents = files()
    del contents["CLEVR_v1.0/scenes/CLEVR_val_scenes.json"]
    fill(tmp_path, contents)
    with pytest.raises(DataError, match=r"has no CLEVR_v1.0/scenes/CLEVR_val_scenes.json: it is"):
        read_clevr_count(place_of(TASKS["clevr-count"]))


def test_damage_of_the_archive_is_an_error(tmp_path, pack, place_of):
    path = pack(tmp_path / "CLEVR_v1.0.zip", files())
    content = path.read_bytes()
    first = content.index(b"CLEVR_train_scenes.json") + 60
    path.write_bytes(content[:first] + bytes(20) + content[first + 20 :])
    place = place_of(TASKS["clevr-count"])
    with pytest.raises(DataError, match=r"CLEVR_train_scenes.json can't be read: a damaged member"):
        read_clevr_count(place)
    path.write_bytes(content[:-40])
    with pytest.raises(DataError, match="can't be read as a zip"):
        read_clevr_count(place)


def test_an_image_that_is_not_there_can_not_be_read(tmp_path, fill, place_of):
    contents = files()
    del contents["CLEVR_v1.0/images/train/CLEVR_train_000001.png"]
    fill(tmp_path, contents)
    part = read_clevr_count(place_of(TASKS["clevr-count"])).parts["train"]
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        part.store.read(1)
