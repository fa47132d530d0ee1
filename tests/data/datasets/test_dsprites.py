import io
import zipfile

import numpy as np
import pytest

from vitral.data.datasets.dsprites import (
    LOCATIONS,
    ORIENTATIONS,
    SPRITES,
    location_classes,
    orientation_classes,
    read_dsprites_location,
    read_dsprites_orientation,
)
from vitral.data.datasets.table import TASKS
from vitral.errors import DataError

COUNT = 4100  # more than one block
READERS = {"dsprites-loc": read_dsprites_location, "dsprites-ori": read_dsprites_orientation}


class Trap:
    """A pickle that fails the test when it is opened."""

    def __reduce__(self):
        return pytest.fail, ("the pickle was opened",)


def npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def latents(count=COUNT):
    """The publisher's order: y changes first, then x, orientation and so on."""
    number = np.arange(count)
    columns = [number * 0, number // 245_760, number // 40_960 % 6, number // 1024 % 40,
               number // 32 % 32, number % 32]  # fmt: skip
    return np.stack(columns, 1)


def published_arrays(images, classes):
    return {
        "metadata": np.array({"author": Trap()}, object),
        "imgs": images,
        "latents_classes": classes,
        "latents_values": classes.astype(float),
    }


@pytest.fixture
def images(random):
    return random.integers(0, 2, (COUNT, 64, 64), dtype=np.uint8)


def test_images_are_white_on_black_in_three_channels(tmp_path, fill, place_of, images):
    fill(tmp_path, {SPRITES: npz(**published_arrays(images, latents()))})
    published = read_dsprites_location(place_of(TASKS["dsprites-loc"]))
    part = published.parts["train"]
    assert list(published.parts) == ["train"]
    assert part.keys == part.store.names == [str(n) for n in range(COUNT)]
    for number in (0, 4095, 4096, COUNT - 1):
        pixels = part.store.read(number)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, np.stack([images[number] * 255] * 3, -1))
    assert part.store.stamp(0) is None
    assert part.store.blocks() is None


@pytest.mark.parametrize(
    ("name", "column", "divisor"), [("dsprites-loc", 4, 2), ("dsprites-ori", 3, 2.5)]
)
def test_labels_are_those_of_the_task(tmp_path, fill, place_of, images, name, column, divisor):
    fill(tmp_path, {SPRITES: npz(**published_arrays(images, latents()))})
    published = READERS[name](place_of(TASKS[name]))
    assert len(published.classes) == TASKS[name].num_classes
    wanted = np.floor(latents()[:, column] / divisor).astype(int)
    assert published.parts["train"].labels == [published.classes[n] for n in wanted]


def test_classes_are_groups_of_neighbours():
    assert location_classes(np.arange(32)).tolist() == [n // 2 for n in range(32)]
    assert orientation_classes(np.arange(40)).tolist() == [n * 2 // 5 for n in range(40)]
    assert LOCATIONS[:2] == ("x 0 to 1", "x 2 to 3")
    assert ORIENTATIONS[:2] == ("orientation 0 to 2", "orientation 3 to 4")
    assert ORIENTATIONS[-1] == "orientation 38 to 39"


FEW = np.zeros((4, 64, 64), np.uint8)
NOT_ALL = "wanted uint8 \\(4, 64, 64\\) row by row, one for each of latents_classes"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imgs": FEW[:3]}, rf"imgs are uint8 of shape \(3, 64, 64\), {NOT_ALL}"),
        ({"imgs": FEW[:, :32]}, rf"imgs are uint8 of shape \(4, 32, 64\), {NOT_ALL}"),
        ({"imgs": FEW.astype(float)}, rf"imgs are float64 of shape \(4, 64, 64\), {NOT_ALL}"),
        ({"imgs": np.asfortranarray(FEW)}, f"imgs are uint8 of .*{NOT_ALL}"),
        ({"imgs": FEW + 255}, "imgs have a value of 255, wanted 0 and 1: it is not what the"),
        ({"latents_classes": latents(4)[:, :5]}, r"are int64 of shape \(4, 5\), wanted whole num"),
        ({"latents_classes": latents(4) * 1.0}, r"are float64 of shape \(4, 6\), wanted whole num"),
        ({"latents_classes": latents(4)[:, 0]}, r"are int64 of shape \(4,\), wanted whole numbers"),
        ({"latents_classes": latents(4) + 32}, "from 32 to 32 in column 4, wanted 0 to 31: it is"),
        ({"latents_classes": latents(4) - 1}, "from -1 to -1 in column 4, wanted 0 to 31: it is"),
        ({"imgs": np.array([Trap()] * 4, object)}, "imgs are object of shape"),
        ({"latents_classes": np.array([Trap()], object)}, "can't be read: Object arrays cannot"),
    ],
)
def test_other_arrays_are_an_error(tmp_path, fill, place_of, changes, message):
    fill(tmp_path, {SPRITES: npz(**published_arrays(FEW, latents(4)) | changes)})
    with pytest.raises(DataError, match=message):
        read_dsprites_location(place_of(TASKS["dsprites-loc"]))


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def members(imgs):
    """An archive of members that numpy itself would not write."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("latents_classes.npy", npy(latents(4)))
        if imgs is not None:
            archive.writestr("imgs.npy", imgs)
    return file.getvalue()


def with_another_checksum():
    content = npz(imgs=FEW, latents_classes=latents(4))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        checksum = archive.getinfo("imgs.npy").CRC.to_bytes(4, "little")
    assert checksum in content
    return content.replace(checksum, b"\1\2\3\4")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "can't be read: No data left in file; download it again"),
        (b"no npz", "can't be read: .*download it again"),
        (npy(FEW), "holds one array, wanted an .npz of several: download it again"),
        (npz(imgs=FEW, latents_classes=latents(4))[:-30], "can't be read: .*; download it again"),
        (with_another_checksum(), "can't be read: Bad CRC-32 .*; download it again"),
        (npz(imgs=FEW), "can't be read: .*latents_classes.*; download it again"),
        (members(None), "can't be read: .*imgs.npy.*; download it again"),
        (members(b"no npy"), "can't be read: .*; download it again"),
        (members(npy(FEW)[:-1]), "can't be read: imgs are cut short; download it again"),
        (members(npy(FEW) + b"0"), "can't be read: imgs go on after their last image; download"),
        (members(b"\x93NUMPY\2" + npy(FEW)[7:]), "imgs are of another version of .npy than 1.0"),
    ],
)
def test_damage_is_an_error(tmp_path, fill, place_of, content, message):
    fill(tmp_path, {SPRITES: content})
    with pytest.raises(DataError, match=message):
        read_dsprites_location(place_of(TASKS["dsprites-loc"]))
