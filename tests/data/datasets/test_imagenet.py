import numpy as np
import pytest

from vitral.data.datasets.imagenet import (
    DEVKIT,
    TRAIN,
    VALIDATION,
    WHOLE,
    read_imagenet,
    read_imagenet21k,
)
from vitral.data.datasets.table import DATASETS
from vitral.errors import DataError, RequestError

WNIDS = ["n01440764", "n01443537", "n15075141"]
IDS = {1: "n15075141", 2: "n01440764", 3: "n01443537", 4: "n00001740"}
TRUTH = [3, 1, 2, 1]
VAL = [f"ILSVRC2012_val_{n:08}.JPEG" for n in range(1, 5)]


def class_tars(tar_bytes):
    return {
        f"{wnid}.tar": tar_bytes({f"{wnid}_{n}.JPEG": f"{wnid} {n}".encode() for n in (1, 2)})
        for wnid in reversed(WNIDS)
    }


def devkit(mat, *, truth=TRUTH):
    synsets = np.zeros(len(IDS), [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O")])
    for row, (number, wnid) in zip(synsets, IDS.items(), strict=True):
        row["ILSVRC2012_ID"], row["WNID"], row["words"] = number, wnid, "a, b"
    data = "ILSVRC2012_devkit_t12/data"
    return {
        f"{data}/meta.mat": mat(synsets=synsets),
        f"{data}/ILSVRC2012_validation_ground_truth.txt": "\n".join(map(str, truth)).encode(),
    }


@pytest.fixture
def tars(tmp_path, pack, tar_bytes, mat):
    pack(tmp_path / TRAIN, class_tars(tar_bytes))
    # The members of the publisher's tar are in no order.
    pack(tmp_path / VALIDATION, {name: name.encode() for name in reversed(VAL)})
    pack(tmp_path / DEVKIT, devkit(mat))
    return tmp_path


def check(published):
    assert published.classes == tuple(WNIDS)
    train, validation = published.parts["train"], published.parts["validation"]
    assert sorted(train.labels) == [wnid for wnid in WNIDS for _ in (1, 2)]
    for number, (label, key) in enumerate(zip(train.labels, train.keys, strict=True)):
        assert train.store.read(number) == key.removesuffix(".JPEG").replace("_", " ").encode()
        assert key.startswith(label)
    assert validation.labels == [IDS[number] for number in TRUTH]
    assert validation.keys == VAL
    assert [validation.store.read(n) for n in range(4)] == [name.encode() for name in VAL]


def test_the_publishers_tars_are_read(tars, place_of):
    check(read_imagenet(place_of(DATASETS["imagenet"])))


def test_a_second_opening_looks_at_no_inner_tar_again(tars, place_of, monkeypatch):
    first = read_imagenet(place_of(DATASETS["imagenet"]))
    monkeypatch.setattr("vitral.data.sources.archives._find_nested", None)
    check(read_imagenet(place_of(DATASETS["imagenet"])))
    stamps = [first.parts["train"].store.stamp(n) for n in range(6)]
    assert len(set(stamps)) == 6


def unpacked(tmp_path, fill):
    fill(
        tmp_path / "train",
        {f"{w}/{w}_{n}.JPEG": f"{w} {n}".encode() for w in WNIDS for n in (1, 2)},
    )


def test_unpacked_folders_are_read(tmp_path, fill, place_of, mat):
    unpacked(tmp_path, fill)
    fill(tmp_path / "val", {name: name.encode() for name in VAL})
    fill(tmp_path, devkit(mat))
    check(read_imagenet(place_of(DATASETS["imagenet"])))


def test_validation_images_in_class_folders_need_no_kit(tmp_path, fill, place_of):
    unpacked(tmp_path, fill)
    names = {
        f"{IDS[class_id]}/{name}": name.encode() for class_id, name in zip(TRUTH, VAL, strict=True)
    }
    fill(tmp_path / "val", names)
    check(read_imagenet(place_of(DATASETS["imagenet"])))


def test_flat_validation_images_need_the_kit(tmp_path, fill, place_of):
    unpacked(tmp_path, fill)
    fill(tmp_path / "val", {name: name.encode() for name in VAL})
    with pytest.raises(RequestError, match=f"needs {DEVKIT} from https://image-net.org"):
        read_imagenet(place_of(DATASETS["imagenet"]))


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (TRUTH[:3], "has 4 images, the development kit labels of 3"),
        ([1, 2, 3, 9], "states no validation classes: KeyError"),
        ([1, 2, 3, "x"], "states no validation classes: ValueError"),
    ],
)
def test_a_bad_kit_is_an_error(tars, pack, place_of, mat, truth, message):
    pack(tars / DEVKIT, devkit(mat, truth=truth))
    with pytest.raises(DataError, match=message):
        read_imagenet(place_of(DATASETS["imagenet"]))


def test_a_kit_of_other_variables_is_an_error(tars, pack, place_of, mat):
    files = devkit(mat)
    files["ILSVRC2012_devkit_t12/data/meta.mat"] = mat(other=[1])
    pack(tars / DEVKIT, files)
    with pytest.raises(DataError, match="states no validation classes"):
        read_imagenet(place_of(DATASETS["imagenet"]))


def test_damaged_tars_are_an_error(tars, place_of):
    (tars / TRAIN).write_bytes(b"no tar" * 200)
    with pytest.raises(DataError, match="can't be read as a tar of tars"):
        read_imagenet(place_of(DATASETS["imagenet"]))


def test_a_folder_without_classes_is_an_error(tmp_path, fill, place_of):
    fill(tmp_path, {"train/readme.txt": b"x", "val/x.JPEG": b"x"})
    with pytest.raises(DataError, match="has no images of the form WNID/NAME.JPEG"):
        read_imagenet(place_of(DATASETS["imagenet"]))


@pytest.mark.parametrize("form", ["tar", "folder"])
def test_all_of_imagenet_is_read(tmp_path, fill, pack, place_of, tar_bytes, form):
    if form == "tar":
        pack(tmp_path / WHOLE, class_tars(tar_bytes))
    else:
        unpacked(tmp_path, fill)
        (tmp_path / "train").rename(tmp_path / "fall11_whole")
    published = read_imagenet21k(place_of(DATASETS["imagenet21k"]))
    assert published.classes == tuple(WNIDS)
    assert len(published.parts["train"].labels) == 6
