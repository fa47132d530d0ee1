from dataclasses import replace

import numpy as np
import pytest

from vitral.data.dataset import open_dataset
from vitral.data.datasets.names import check_task
from vitral.data.datasets.published import Part, Published
from vitral.data.datasets.table import TASKS
from vitral.data.datasets.vtab import list_published, list_task, list_tree
from vitral.data.order import tfds_order
from vitral.data.sources.arrays import ArrayStore
from vitral.errors import DataError, RequestError


@pytest.fixture(scope="module")
def published():
    """2,000 training, 500 validation and 300 test images, each of a value of its own."""
    counts, parts, first = {"train": 2000, "validation": 500, "test": 300}, {}, 0
    for split, count in counts.items():
        values = np.arange(first, first + count, dtype=np.uint16)
        images = np.broadcast_to(values[:, None, None], (count, 2, 2))
        labels = ["ab"[value % 2] for value in values.tolist()]
        parts[split] = Part(
            ArrayStore(images, path=split), labels, [f"{n}.jpg" for n in range(count)]
        )
        first += count
    return Published(("a", "b"), parts)


def values_by_split(listing):
    found = {}
    for number, split in enumerate(listing.splits):
        found.setdefault(split, []).append(int(listing.store.read(number)[0, 0, 0]))
    return found


def task(train=("train", 0, 100), validation=("validation", 0, 100), test=("test", 0, 100)):
    return replace(TASKS["dtd"], train=train, validation=validation, test=test, num_classes=2)


@pytest.mark.parametrize("thousand", [False, True])
def test_the_first_800_and_200_are_taken(published, thousand):
    listing = list_published("vtab-dtd", task(), published, thousand=thousand)
    train = tfds_order("train", published.parts["train"].keys)[:800].tolist()
    keys = published.parts["validation"].keys
    validation = (2000 + tfds_order("validation", keys)[:200]).tolist()
    found = values_by_split(listing)
    assert found["train"] == (train + validation if thousand else train)
    assert found.get("validation") == (None if thousand else validation)
    assert sorted(found["test"]) == list(range(2500, 2800))
    assert all(
        label == "ab"[int(listing.store.read(number)[0, 0, 0]) % 2]
        for number, label in enumerate(listing.labels)
    )
    assert len(set(listing.store.names)) == len(listing.store.names)


def test_parts_of_one_split_do_not_overlap(published):
    slices = task(("train", 0, 60), ("train", 60, 80), ("train", 80, 100))
    found = values_by_split(list_published("x", slices, published, thousand=False))
    order = tfds_order("train", published.parts["train"].keys)
    assert found["train"] == order[:800].tolist()
    assert found["validation"] == order[1200:1400].tolist()
    assert found["test"] == order[1600:].tolist()


def test_all_nineteen_tasks_are_there_in_their_groups():
    groups = [task.group for task in TASKS.values()]
    counts = {group: groups.count(group) for group in dict.fromkeys(groups)}
    assert counts == {"natural": 7, "specialized": 4, "structured": 8}


def test_what_is_off_is_what_bit_turns_off():
    no_flip = {name for name, row in TASKS.items() if not row.flip}
    no_crop = {name for name, row in TASKS.items() if not row.crop}
    assert no_flip == {"dsprites-loc", "dsprites-ori", "smallnorb-azim"}
    assert no_crop == {"clevr-count", "clevr-dist", "dmlab", "kitti-dist", "dsprites-loc"}


TREE = {"train800": (6, "train"), "val200": (2, "validation"), "train800val200": (8, "train"),
        "test": (4, "test")}  # fmt: skip


def tree(root, fill, picture, encode, *, num_classes=47):
    """The community's tree of one task."""
    count = iter(range(100))
    for name, (length, _) in TREE.items():
        files = [f"images/{name}/{n:06}.jpg" for n in range(length)]
        fill(root, {file: encode(picture(next(count)), "JPEG") for file in files})
        rows = [f"{file} {n % num_classes}" for n, file in enumerate(files)]
        (root / f"{name}.txt").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("thousand", [False, True])
@pytest.mark.parametrize("name", TASKS)
def test_the_communitys_tree_is_read(tmp_path, fill, picture, encode, name, thousand):
    row = TASKS[name]
    tree(tmp_path / "vtab-1k" / row.tree[0], fill, picture, encode, num_classes=2)
    listing = list_task(name, row, tmp_path, thousand=thousand)
    wanted = {"train": 8, "test": 4} if thousand else {"train": 6, "validation": 2, "test": 4}
    assert {s: listing.splits.count(s) for s in dict.fromkeys(listing.splits)} == wanted
    assert listing.classes == tuple(map(str, range(row.num_classes)))
    assert listing.labels[:3] == ["0", "1", "0"]
    assert "compressed again" in listing.notes[0]


def test_a_named_task_is_opened_and_its_counts_are_compared(tmp_path, fill, picture, encode):
    tree(tmp_path / "oxford_iiit_pet", fill, picture, encode, num_classes=2)
    data = open_dataset("vtab-pets", settings=_settings(tmp_path))
    assert len(data.classes) == 37
    assert {split: len(part) for split, part in data.splits.items()} == {
        "train": 6, "validation": 2, "test": 4
    }  # fmt: skip
    assert "warning: vtab-pets has 6 train images here, 800 as published" in data.notes
    assert "warning: vtab-pets has 4 test images here, 3,669 as published" in data.notes


def _settings(directory):
    from vitral.config.run import DataSettings

    return DataSettings(source="", directory=str(directory), validation_share=0.0)


@pytest.mark.parametrize("line", ["images/1.jpg", "images/1.jpg x", "images/1.jpg 47", " 3"])
def test_a_line_without_path_and_class_is_an_error(tmp_path, fill, picture, encode, line):
    tree(tmp_path, fill, picture, encode)
    (tmp_path / "val200.txt").write_text(line)
    with pytest.raises(DataError, match=r"val200\.txt: .* is no path and class below 47"):
        list_tree(tmp_path, TASKS["dtd"], thousand=False)


def test_an_empty_list_is_an_error(tmp_path, fill, picture, encode):
    # Without it the images would be split anew.
    tree(tmp_path, fill, picture, encode)
    (tmp_path / "test.txt").write_text("\n")
    with pytest.raises(DataError, match=r"test\.txt is empty: it must list images"):
        list_tree(tmp_path, TASKS["dtd"], thousand=True)


def test_a_task_is_found_without_being_read(tmp_path):
    with pytest.raises(RequestError, match="camelyon needs .* or name another folder"):
        check_task("camelyon", directory=tmp_path)
    for file in TASKS["camelyon"].files:
        (tmp_path / file.name).write_bytes(b"not what was published")
    check_task("camelyon", directory=tmp_path)
    (tmp_path / "dtd").mkdir()
    (tmp_path / "dtd/test.txt").touch()
    check_task("dtd", directory=tmp_path)


def test_a_missing_list_is_an_error(tmp_path, fill, picture, encode):
    tree(tmp_path, fill, picture, encode)
    (tmp_path / "train800.txt").unlink()
    with pytest.raises(DataError, match=r"train800\.txt can't be read"):
        list_tree(tmp_path, TASKS["dtd"], thousand=False)
