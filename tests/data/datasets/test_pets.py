import pytest

from vitral.data.datasets.pets import read_pets
from vitral.data.datasets.table import DATASETS
from vitral.errors import DataError

TRAIN = ["Abyssinian_1 1 1 1", "american_bulldog_10 2 2 1", "Birman_2 3 1 2"]
TEST = ["Birman_7 3 1 2", "Abyssinian_2 1 1 1"]


def files(train=TRAIN, test=TEST):
    names = [line.split()[0] for line in (*TRAIN, *TEST)]
    images = {f"images/{name}.jpg": name.encode() for name in names}
    return (
        images | {"images/Abyssinian_100.mat": b"stray"},
        {
            "annotations/trainval.txt": "\n".join(["#Image CLASS-ID", *train]).encode(),
            "annotations/test.txt": "\n".join(test).encode(),
        },
    )


@pytest.mark.parametrize("form", ["archives", "folders"])
def test_images_follow_the_lists(tmp_path, fill, pack, place_of, form):
    images, lists = files()
    if form == "archives":
        pack(tmp_path / "images.tar.gz", images)
        pack(tmp_path / "annotations.tar.gz", lists)
    else:
        fill(tmp_path / "set", images | lists)
    published = read_pets(place_of(DATASETS["pets"]))
    assert published.classes == ("Abyssinian", "american_bulldog", "Birman")
    train, test = published.parts["train"], published.parts["test"]
    assert train.labels == ["Abyssinian", "american_bulldog", "Birman"]
    assert test.labels == ["Birman", "Abyssinian"]
    assert test.keys == ["Birman_7.jpg", "Abyssinian_2.jpg"]
    assert [test.store.read(n) for n in range(2)] == [b"Birman_7", b"Abyssinian_2"]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (["Abyssinian_1 one"], "trainval.txt has lines that name no image and class"),
        (["Abyssinian_1"], "trainval.txt has lines that name no image and class"),
        (["Abyssinian_1 5 1 1"], "its classes are not numbered from 1 on"),
    ],
)
def test_bad_lists_are_an_error(tmp_path, fill, place_of, train, message):
    images, lists = files(train=train)
    fill(tmp_path, images | lists)
    with pytest.raises(DataError, match=message):
        read_pets(place_of(DATASETS["pets"]))


def test_an_image_that_is_not_there_can_not_be_read(tmp_path, fill, place_of):
    images, lists = files(train=[*TRAIN, "Birman_9 3 1 2"])
    fill(tmp_path, images | lists)
    part = read_pets(place_of(DATASETS["pets"])).parts["train"]
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        part.store.read(3)
