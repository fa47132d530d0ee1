import itertools

import numpy as np
import pytest

from vitral.data.datasets.kitti import (
    CLASSES,
    DEVKIT,
    IMAGES,
    LABELS,
    distance_class,
    read_kitti_distance,
    split_by_video,
)
from vitral.data.datasets.table import TASKS
from vitral.errors import DataError

VIDEOS = [f"2011_09_26_drive_{number:04}_sync" for number in (1, 5, 9, 11, 13)]
LINES = [f"2011_09_26 {video} {frame:010}" for video in VIDEOS for frame in range(2)]
PLACES = [4, 1, 9, 3, 10, 2, 7, 5, 8, 6]  # of each image, a line from 1
VIDEO_OF_IMAGE = [VIDEOS[(line - 1) // 2] for line in PLACES]
DEPTHS = [[8.0], [8.01, 30.0], [20.0], [20.01], [], [], [7.5, 9.0], [25.0], [100.0], [1.0]]
WANTED = [0, 1, 1, 2, 3, 3, 0, 2, 2, 0]


def row(kind, depth):
    return f"{kind} 0.00 0 -1.57 614.24 181.78 727.31 284.77 1.57 1.73 4.15 1.00 1.75 {depth} -1.62"


def rows(depths):
    """The publisher's rows, of vehicles and of what does not count."""
    vehicles = [row(("Car", "Van", "Truck")[n % 3], depth) for n, depth in enumerate(depths)]
    others = [row("Pedestrian", 2.0), row("Tram", 2.5), row("DontCare", -1000)]
    return "".join(f"{line}\n" for line in others + vehicles).encode()


def images():
    names = [f"training/image_2/{number:06}.png" for number in range(10)]
    return {name: name.encode() for name in [*names, "testing/image_2/000000.png"]}


def labels(**changed):
    files = {f"training/label_2/{n:06}.txt": rows(depths) for n, depths in enumerate(DEPTHS)}
    return files | {
        f"training/label_2/{name[1:]}.txt": content for name, content in changed.items()
    }


def devkit(*, places=PLACES, lines=LINES):
    return {
        "readme.txt": b"read me",
        "mapping/train_rand.txt": (",".join(map(str, places)) + "\n").encode(),
        "mapping/train_mapping.txt": ("\n".join(lines) + "\n").encode(),
    }


def read(tmp_path, pack, place_of, *, label_files=None, devkit_files=None):
    pack(tmp_path / IMAGES, images())
    pack(tmp_path / LABELS, labels() if label_files is None else label_files)
    pack(tmp_path / DEVKIT, devkit() if devkit_files is None else devkit_files)
    return read_kitti_distance(place_of(TASKS["kitti-dist"]))


def check(published):
    assert published.classes == CLASSES
    assert len(CLASSES) == TASKS["kitti-dist"].num_classes
    splits = split_by_video(VIDEO_OF_IMAGE)
    assert list(published.parts) == ["train", "validation", "test"]
    for split, part in published.parts.items():
        assert part.keys == [f"{number:06}.png" for number in splits[split]]
        assert part.labels == [CLASSES[WANTED[number]] for number in splits[split]]
        first = f"training/image_2/{splits[split][0]:06}.png"
        assert part.store.read(0) == first.encode()


def test_the_publishers_archives_are_read(tmp_path, pack, place_of):
    check(read(tmp_path, pack, place_of))


def test_the_unpacked_folders_are_read(tmp_path, fill, place_of):
    fill(tmp_path / "set", images() | labels() | devkit())
    check(read_kitti_distance(place_of(TASKS["kitti-dist"])))


def test_unpacked_images_beside_packed_labels_are_read(tmp_path, fill, pack, place_of):
    fill(tmp_path, images() | devkit())
    pack(tmp_path / LABELS, labels())
    check(read_kitti_distance(place_of(TASKS["kitti-dist"])))


@pytest.mark.parametrize(("threshold", "below"), [(8.0, 0), (20.0, 1), (999.0, 2)])
def test_a_distance_at_a_threshold_is_of_the_class_below(threshold, below):
    at = np.float32(threshold)
    before, after = np.nextafter(at, np.float32(0)), np.nextafter(at, np.float32(2000))
    found = [distance_class([999.5, float(value)]) for value in (before, at, after)]
    assert found == [below, below, below + 1]
    # Of float64, but the same number in float32.
    assert distance_class([threshold + 1e-9]) == below


@pytest.mark.parametrize(
    ("depths", "label"), [([], 3), ([-2.0, 30.0], 0), ([-99.9], 0), ([-100.0], -1), ([np.nan], -1)]
)
def test_the_nearest_vehicle_counts(depths, label):
    assert distance_class(depths) == label


def test_videos_are_divided_as_in_tensorflow_datasets():
    videos = [f"v{number % 25:02}" for number in range(100)]
    splits = split_by_video(videos)
    assert sorted(itertools.chain(*splits.values())) == list(range(100))
    assert {split: len(images) for split, images in splits.items()} == {
        "train": 84, "validation": 8, "test": 8
    }  # fmt: skip
    found = {
        split: sorted({videos[number] for number in images}) for split, images in splits.items()
    }
    assert sorted(itertools.chain(*found.values())) == sorted(set(videos))
    state = np.random.get_state()
    np.random.seed(123)
    test = np.random.choice(sorted(set(videos)), 2, replace=False)
    validation = np.random.choice(sorted(set(videos) - set(test)), 2, replace=False)
    np.random.set_state(state)
    assert found["test"] == sorted(test.tolist()) == ["v05", "v21"]
    assert found["validation"] == sorted(validation.tolist()) == ["v14", "v19"]


def test_one_video_at_least_is_of_each_split():
    splits = split_by_video(["a", "b", "c", "a"])
    assert {len(splits["test"]), len(splits["validation"])} <= {1, 2}
    assert min(map(len, splits.values())) >= 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"places": ["x"]}, "state no videos of the images .ValueError.*: it is not what the pub"),
        ({"places": [0, 1]}, "state no videos of the images"),
        ({"places": [1, 11]}, "state no videos of the images"),
        ({"lines": ["2011_09_26"] * 10}, "state no videos of the images"),
        ({"places": [1, 2, 3]}, "states images of 2 videos, wanted at least 3 to divide"),
    ],
)
def test_another_development_kit_is_an_error(tmp_path, pack, place_of, changed, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, pack, place_of, devkit_files=devkit(**changed))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Car 0.00 0", r"000003.txt: 'Car 0.00 0' is no object of 15 columns, such as 'Car"),
        (row("Bus", 3.0).encode(), "is no object of 15 columns"),
        (row("Car", "far").encode(), "is no object of 15 columns"),
        (row("Car", 3.0).encode() + b" 0.9", "is no object of 15 columns"),
        (row("Van", -100.0).encode(), r"has vehicles at \[-100.0\] m, wanted distances above -100"),
        (row("Van", "nan").encode(), r"has vehicles at \[nan\] m, wanted distances above -100 m"),
    ],
)
def test_another_file_of_labels_is_an_error(tmp_path, pack, place_of, content, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, pack, place_of, label_files=labels(_000003=content))


def test_a_missing_file_is_an_error(tmp_path, pack, place_of):
    files = labels()
    del files["training/label_2/000007.txt"]
    with pytest.raises(DataError, match="has no training/label_2/000007.txt: it is not what the"):
        read(tmp_path, pack, place_of, label_files=files)
    with pytest.raises(DataError, match="has no mapping/train_rand.txt"):
        read(tmp_path, pack, place_of, devkit_files={"readme.txt": b"read me"})


@pytest.mark.parametrize("name", [IMAGES, LABELS, DEVKIT])
def test_damage_of_an_archive_is_an_error(tmp_path, pack, place_of, name):
    read(tmp_path, pack, place_of)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=f"{name} can't be read as a zip"):
        read_kitti_distance(place_of(TASKS["kitti-dist"]))


def test_an_image_that_is_not_there_can_not_be_read(tmp_path, pack, place_of):
    read(tmp_path, pack, place_of)
    pack(tmp_path / IMAGES, {"training/image_2/none.png": b""})
    part = read_kitti_distance(place_of(TASKS["kitti-dist"])).parts["train"]
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        part.store.read(0)
